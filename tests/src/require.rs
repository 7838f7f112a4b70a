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

/// Whether two CPUs can run at once.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn two_cpus(test: &str) -> bool {
    let two = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= 2);
    if !two {
        skip(test, "needs two CPUs");
    }
    two
}

/// Whether the release binary is built.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn release_binary(test: &str) -> bool {
    let built = crate::product::binary().is_ok();
    if !built {
        skip(test, "needs target/release/ctguard: cargo build --release");
    }
    built
}

/// Whether the kernel has the functions that XDP programs ask conntrack with.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn conntrack_functions(test: &str) -> bool {
    let there = has_conntrack_functions();
    if !there {
        skip(test, "needs a kernel with bpf_xdp_ct_lookup and BTF");
    }
    there
}

/// Whether the kernel's types, or those of its module, name the function.
#[must_use]
pub fn has_conntrack_functions() -> bool {
    let name = b"\0bpf_xdp_ct_lookup\0";
    ["vmlinux", "nf_conntrack"].iter().any(|file| {
        std::fs::read(format!("/sys/kernel/btf/{file}"))
            .is_ok_and(|types| types.windows(name.len()).any(|window| window == name))
    })
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI: {reason}");
    println!("skipped: {test}: {reason}");
}
