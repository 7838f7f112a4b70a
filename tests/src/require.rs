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

/// Whether the release binary is built, and this program is there to run it with.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn program(test: &str, name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if !there {
        skip(test, &format!("needs the program {name}"));
    }
    there && release_binary(test)
}

/// Whether this machine has no journal, whose socket a test can then take.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn no_journal(test: &str, socket: &std::path::Path) -> bool {
    let is_free = !socket.exists();
    if !is_free {
        skip(test, "this machine has a journal");
    }
    is_free
}

/// Whether a processor, by its file `online`, can be taken offline.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn processor_that_may_go(test: &str, online: &str) -> bool {
    let may_go = std::fs::read_to_string(online).is_ok_and(|state| state.trim() == "1")
        && std::fs::File::options().write(true).open(online).is_ok();
    if !may_go {
        skip(test, &format!("needs a processor that may go offline, by {online}"));
    }
    may_go
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

/// Whether the kernel's lookup takes a conntrack zone, as it does from Linux 6.10 on.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn conntrack_zones(test: &str) -> bool {
    linux(test, (6, 10), "whose lookup takes zones")
}

/// Whether a test run can put a frame's start into fragments, as it can from Linux 6.18 on.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn test_runs_in_fragments(test: &str) -> bool {
    linux(test, (6, 18), "whose test runs take frames in fragments of any length")
}

fn linux(test: &str, (major, minor): (u32, u32), why: &str) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let there = (numbers.next(), numbers.next()) >= (Some(major), Some(minor));
    if !there {
        skip(test, &format!("needs Linux {major}.{minor}, {why}"));
    }
    there
}

/// Whether netfilter sees bridged packets.
///
/// # Panics
/// As [`root`].
#[must_use]
pub fn bridge_netfilter(test: &str) -> bool {
    let there = crate::sysctl::path("net.bridge.bridge-nf-call-iptables").exists();
    if !there {
        skip(test, "needs bridge netfilter: modprobe br_netfilter");
    }
    there
}

fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} may not be skipped in CI: {reason}");
    println!("skipped: {test}: {reason}");
}
