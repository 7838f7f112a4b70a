//! What a test needs of the machine; where it is missing the test is skipped, with the reason in a
//! line that `cargo xtask test` counts, and with CI set it fails.

/// Whether the tests may load eBPF and make namespaces.
///
/// # Panics
/// Where they may not, and the environment variable `CI` is set.
#[must_use]
pub fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI: {reason}");
    println!("skipped: {test}: {reason}");
}
