//! Project tasks: `cargo xtask ci` runs everything that CI runs.

fn main() {}
