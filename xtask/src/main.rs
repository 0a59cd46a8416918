//! Setting up, running, testing and measuring finwatch.

fn main() {}
