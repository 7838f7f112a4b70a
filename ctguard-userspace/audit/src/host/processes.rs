//! Running processes, by name.

use super::machine::Host;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// At most 15 bytes, as the kernel has it.
    pub name: String,
    pub arguments: Vec<String>,
}

impl Process {
    /// Those with one of these names; processes that end meanwhile or are hidden are left out.
    pub fn named(host: &Host, names: &[&str]) -> Vec<Self> {
        let listed = host.names("/proc").unwrap_or_default();
        let pids = listed.iter().filter_map(|name| name.parse().ok());
        pids.filter_map(|pid| Self::read(host, pid, names)).collect()
    }

    fn read(host: &Host, pid: u32, names: &[&str]) -> Option<Self> {
        let name = host.text(&format!("/proc/{pid}/comm")).ok()??.trim().to_owned();
        if !names.contains(&name.as_str()) {
            return None;
        }
        let line = host.text(&format!("/proc/{pid}/cmdline")).ok().flatten().unwrap_or_default();
        let arguments = line.split('\0').filter(|part| !part.is_empty()).map(str::to_owned);
        Some(Self { pid, name, arguments: arguments.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Fake, *};

    #[test]
    fn processes_are_found_by_name_with_their_arguments() {
        let fake = Fake::new(
            "processes",
            &[
                ("/proc/12/comm", "kube-proxy\n"),
                ("/proc/12/cmdline", "/usr/bin/kube-proxy\0--conntrack-min=131072\0"),
                ("/proc/13/comm", "sshd\n"),
                ("/proc/self/comm", "kube-proxy\n"),
            ],
        );
        let found = Process::named(&fake.host, &["kube-proxy", "firewalld"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid, 12);
        assert_eq!(found[0].arguments, ["/usr/bin/kube-proxy", "--conntrack-min=131072"]);
    }
}
