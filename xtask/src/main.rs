//! What a developer and CI ask of this repository.
fn main() {}
