//! The records both halves read and write, and the names of what they count.
//!
//! Every struct is `repr(C)`, integers only and without padding, so that any byte pattern is valid and both compilers
//! agree on the layout.

mod connections;
mod incidents;
mod pairs;
mod settings;

pub use self::{connections::*, incidents::*, pairs::*, settings::*};
