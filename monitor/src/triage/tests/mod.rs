//! Each rule fires upon what it is for, and stays silent upon its nearest innocent neighbour.

mod connections;
mod host;
mod properties;
mod races;
mod reports;
mod scene;
mod unanswered;
