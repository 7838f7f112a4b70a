//! ctguard: an early-drop guard for Linux routers and servers that track connections.
fn main() {}
