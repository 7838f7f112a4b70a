//! From where the operator is logged in over SSH: what a limit must not cut off.
//!
//! sshd tells it in the environment, which `sudo` drops. So the processes above this one are asked
//! too: for their environment, and for the connections of an SSH server among them.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ctguard_audit::host::{Host, parse_address};

const VARIABLES: [&str; 2] = ["SSH_CONNECTION", "SSH_CLIENT"];
const SERVERS: [&str; 3] = ["sshd", "sshd-session", "dropbear"];
/// `TCP_ESTABLISHED` of `include/net/tcp_states.h`.
const ESTABLISHED: &str = "01";
/// More processes are not above one another.
const MOST: usize = 64;

/// The clients' addresses; none if this is no SSH session.
pub(super) fn clients() -> BTreeSet<IpAddr> {
    let own = VARIABLES.into_iter().filter_map(|name| first_address(&std::env::var(name).ok()?));
    let mut clients: BTreeSet<_> = own.collect();
    clients.extend(of_ancestors(&Host::at("/"), std::process::id()));
    clients.retain(|client| !client.is_loopback());
    clients
}

fn of_ancestors(host: &Host, process: u32) -> BTreeSet<IpAddr> {
    let mut clients = BTreeSet::new();
    let mut process = process;
    for _ in 0..MOST {
        let read = |file: &str| fs::read(host.path(&format!("/proc/{process}/{file}")));
        for variable in read("environ").unwrap_or_default().split(|&byte| byte == 0) {
            let variable = String::from_utf8_lossy(variable);
            let value = variable.split_once('=').filter(|(name, _)| VARIABLES.contains(name));
            clients.extend(value.and_then(|(_, value)| first_address(value)));
        }
        let status = String::from_utf8_lossy(&read("status").unwrap_or_default()).into_owned();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:").is_some_and(|name| SERVERS.contains(&name)) {
            clients.extend(peers(&host.path(&format!("/proc/{process}"))));
        }
        match field("PPid:").and_then(|parent| parent.parse().ok()) {
            Some(parent) if parent > 0 => process = parent,
            Some(_) | None => break,
        }
    }
    clients
}

/// The client's address comes first in both variables.
fn first_address(value: &str) -> Option<IpAddr> {
    client_address(value.split_whitespace().next()?)
}

/// An address as people and programs write it: a link-local one may name its interface
/// (`fe80::1%wan0`).
pub(super) fn client_address(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    Some(address.parse::<IpAddr>().ok()?.to_canonical())
}

/// The other ends of a process's TCP connections.
fn peers(process: &Path) -> Vec<IpAddr> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    let sockets = links.filter_map(|link| {
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    let sockets: BTreeSet<_> = sockets.collect();
    let mut peers = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        let text = fs::read_to_string(process.join(table)).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, _, peer, ESTABLISHED, _, _, _, _, _, inode, ..] = words[..] else { continue };
            let peer = peer.split_once(':').and_then(|(address, _)| parse_address(address));
            peers.extend(peer.filter(|_| sockets.contains(inode)).map(|it| it.to_canonical()));
        }
    }
    peers.retain(|peer| *peer != Ipv4Addr::UNSPECIFIED);
    peers
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Processes(tempfile::TempDir);

    impl Processes {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn add(&self, number: u32, name: &str, parent: u32, environment: &str) {
            let directory = self.0.path().join(format!("proc/{number}"));
            fs::create_dir_all(directory.join("fd")).unwrap();
            fs::create_dir_all(directory.join("net")).unwrap();
            let status = format!("Name:\t{name}\nUmask:\t0022\nPid:\t{number}\nPPid:\t{parent}\n");
            fs::write(directory.join("status"), status).unwrap();
            fs::write(directory.join("environ"), environment).unwrap();
        }

        fn clients(&self, process: u32) -> Vec<String> {
            let clients = of_ancestors(&Host::at(self.0.path()), process);
            clients.iter().map(ToString::to_string).collect()
        }
    }

    #[test]
    fn sudo_hides_nothing() {
        let processes = Processes::new();
        processes.add(9, "ctguard", 8, "SUDO_USER=me\0PATH=/bin\0");
        processes.add(8, "sudo", 7, "");
        processes.add(7, "bash", 1, "HOME=/\0SSH_CONNECTION=2001:db8:7::9 5000 2001:db8::1 22\0");
        processes.add(1, "systemd", 0, "");
        assert_eq!(processes.clients(9), ["2001:db8:7::9"]);
    }

    #[test]
    fn a_session_whose_environment_is_gone_is_known_by_its_connection() {
        let processes = Processes::new();
        processes.add(9, "ctguard", 8, "");
        processes.add(8, "sshd-session", 1, "");
        processes.add(1, "init", 0, "");
        let directory = processes.0.path().join("proc/8");
        symlink("socket:[4711]", directory.join("fd/4")).unwrap();
        symlink("/dev/null", directory.join("fd/0")).unwrap();
        let head = "  sl  local_address rem_address st\n";
        let line = |peer: &str, state, inode| {
            format!(" 0: 0100007F:0016 {peer}:C350 {state} 0:0 00:0 0 0 0 {inode} 1\n")
        };
        let other = line("630200C0", "01", 4712);
        let text = format!("{head}{other}{}", line("070200C0", "01", 4711));
        fs::write(directory.join("net/tcp"), text).unwrap();
        // An IPv4 client of a socket that takes both.
        let mapped = line("0000000000000000FFFF0000080200C0", "01", 4711);
        fs::write(directory.join("net/tcp6"), format!("{head}{mapped}")).unwrap();
        assert_eq!(processes.clients(9), ["192.0.2.7", "192.0.2.8"]);
    }

    /// Fails when nobody notices that `enforce` would cut off who came by a link-local address.
    #[test]
    fn a_client_on_the_same_link_names_its_interface() {
        let processes = Processes::new();
        processes.add(9, "ctguard", 1, "SSH_CLIENT=fe80::7%wan0 5000 22\0");
        assert_eq!(processes.clients(9), ["fe80::7"]);
    }

    #[test]
    fn who_is_not_logged_in_over_ssh_has_no_client() {
        let processes = Processes::new();
        processes.add(9, "ctguard", 9, "SSH_AUTH_SOCK=/tmp/x\0SSH_CONNECTION=nonsense\0");
        assert!(processes.clients(9).is_empty(), "also if a process were its own parent");
        assert!(processes.clients(77).is_empty());
    }
}
