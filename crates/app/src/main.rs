//! The one binary `afterimage`.

fn main() {}
