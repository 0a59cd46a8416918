//! The `finwatch` command.

fn main() {}
