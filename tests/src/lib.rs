//! The harness that kernel tests and the lab share.
