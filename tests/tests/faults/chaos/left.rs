//! What a guard must not leave behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::{Result, ensure};
use aya::programs::loaded_programs;
use ctguard_tests::{daemon::RUN_DIRECTORY, exec, netns::Handle, product::wait_for, sysctl};

/// What was there before.
pub(super) struct Before {
    timeouts: BTreeMap<String, String>,
    programs: BTreeSet<u32>,
    /// The namespace of the router, by its number.
    namespace: u64,
}

impl Before {
    pub(super) fn of(router: &Handle) -> Result<Self> {
        let namespace = router.run(|| Ok(fs::metadata("/proc/thread-self/ns/net")?.ino()))?;
        Ok(Self { timeouts: timeouts(router)?, programs: programs(), namespace })
    }

    pub(super) fn ensure_restored(&self, router: &Handle) -> Result<()> {
        ensure!(timeouts(router)? == self.timeouts, "timeouts are left as the guard set them");
        let qdiscs = exec::run(router.command("tc").args(["qdisc", "show"]))?;
        ensure!(!qdiscs.contains("clsact"), "a clsact is left: {qdiscs}");
        wait_for("the programs' end", || Ok(programs().is_subset(&self.programs).then_some(())))?;
        let pins = router.name().replace('-', "--");
        for entry in fs::read_dir(RUN_DIRECTORY)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ensure!(!name.contains(&pins), "{RUN_DIRECTORY}/{name} is left");
            // What happened stays readable until the namespace is gone.
            let temporary = name.starts_with(&self.namespace.to_string())
                && [".new", ".lock", ".writing", "timeouts.json"]
                    .iter()
                    .any(|end| name.ends_with(end));
            ensure!(!temporary, "{RUN_DIRECTORY}/{name} is left");
        }
        self.wait_for_processes()
    }

    /// A `pause` leaves a process behind, which notices within seconds that the guard is gone.
    fn wait_for_processes(&self) -> Result<()> {
        wait_for("the end of all processes", || {
            let left = fs::read_dir("/proc")?.flatten().any(|entry| {
                let path = entry.path();
                let is_there = fs::metadata(path.join("ns/net"))
                    .is_ok_and(|facts| facts.ino() == self.namespace);
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                is_there && name.trim() == "ctguard"
            });
            Ok((!left).then_some(()))
        })
    }
}

fn timeouts(router: &Handle) -> Result<BTreeMap<String, String>> {
    router.run(|| {
        let directory = Path::new("/proc/sys/net/netfilter");
        let names = fs::read_dir(directory)?.flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names
            .filter(|name| name.contains("timeout"))
            .map(|name| Ok((name.clone(), sysctl::read(&format!("net.netfilter.{name}"))?)))
            .collect()
    })
}

/// Programs of guards.
fn programs() -> BTreeSet<u32> {
    let all = loaded_programs().filter_map(Result::ok);
    let ours = all.filter(|it| it.name_as_str().is_some_and(|name| name.starts_with("ctguard_")));
    ours.map(|it| it.id()).collect()
}
