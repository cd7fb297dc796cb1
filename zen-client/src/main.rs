//! zen.

fn main() {}
