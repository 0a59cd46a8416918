//! The live view: what the screen shows (`state`, `rows`, `rates`, `keys`, without I/O), how it is drawn (`draw`), and
//! where it is drawn (`terminal`).

pub mod draw;
pub mod keys;
pub mod rates;
pub mod rows;
pub mod state;
pub mod terminal;
