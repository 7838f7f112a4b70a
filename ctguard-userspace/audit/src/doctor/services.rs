//! Whether the machine's own services can take what is asked of them: SYN cookies and backlogs.

use super::{
    finding::{Finding, Findings, Severity},
    history::Meanwhile,
};
use crate::host::{Host, LISTENERS, Listener, NETSTAT, sysctl_path};

const SYN_COOKIES: &str = "net.ipv4.tcp_syncookies";
/// No socket's backlog is longer, whatever it asks for (`__sys_listen`, `net/socket.c`); that of
/// connections that are not complete is as long (`inet_csk_reqsk_queue_is_full`).
const SOMAXCONN: &str = "net.core.somaxconn";
/// Counts only while SYN cookies are off (`tcp_conn_request`, `net/ipv4/tcp_input.c`).
const SYN_BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";
/// What kernels before 5.4 have; later ones have 4096.
const SMALL_SOMAXCONN: u64 = 128;
const SMALL_SYN_BACKLOG: u64 = 1024;
/// Sockets that are told by address.
const NAMED: usize = 3;

pub(super) fn check(host: &Host, stack: &Meanwhile, findings: &mut Findings) {
    let cookies = findings.read("syn-cookies", host.sysctl(SYN_COOKIES)).flatten();
    let cookies_are_off = cookies.as_deref() == Some("0");
    findings.add(cookies_are_off.then(without_cookies));
    let listeners = findings.read("listeners", Listener::read(host)).unwrap_or_default();
    findings.add(accept_queue(stack, &listeners));
    findings.add(syn_backlog(stack));
    if listeners.iter().all(Listener::is_local) {
        return;
    }
    if let Some(Some(most)) = findings.read("small-backlog", host.number(&sysctl_path(SOMAXCONN))) {
        findings.add((most <= SMALL_SOMAXCONN).then(|| small(SOMAXCONN, most, 4096)));
    }
    if cookies_are_off
        && let Some(Some(most)) =
            findings.read("small-backlog", host.number(&sysctl_path(SYN_BACKLOG)))
    {
        findings.add((most < SMALL_SYN_BACKLOG).then(|| small(SYN_BACKLOG, most, 4096)));
    }
}

fn without_cookies() -> Finding {
    Finding::warning("syn-cookies", "SYN cookies are off")
        .read(sysctl_path(SYN_COOKIES), 0)
        .because(
            "a flood of SYNs at this machine's own services fills their backlogs, whatever the \
             table; with cookies they still answer",
        )
        .by_hand(format!("sysctl -w {SYN_COOKIES}=1"))
}

fn severity(now: u64) -> Severity {
    if now > 0 { Severity::Warning } else { Severity::Note }
}

/// Complete connections that no service accepted in time.
fn accept_queue(stack: &Meanwhile, listeners: &[Listener]) -> Option<Finding> {
    let name = "TcpExtListenOverflows";
    let (total, now) = (stack.total(name), stack.now(name));
    if total == 0 {
        return None;
    }
    let what = format!(
        "{total} connections found the accept queue of their service full, {now} during this audit"
    );
    let mut longest: Vec<_> = listeners.iter().filter(|socket| socket.waiting > 0).collect();
    longest.sort_by_key(|socket| std::cmp::Reverse(socket.waiting));
    let finding = Finding::of("accept-queue", severity(now), what)
        .read(NETSTAT, format!("ListenOverflows {total}"))
        .because(format!(
            "the service accepts too slowly, or has asked for a short backlog (the second argument \
             of listen, {SOMAXCONN} at most): its users wait for seconds, whatever the table"
        ))
        .by_hand("ss -ltn    # Recv-Q waits, Send-Q is the most that may");
    Some(longest.iter().take(NAMED).fold(finding, |finding, socket| {
        let place = LISTENERS[usize::from(socket.at.is_ipv6())];
        finding.read(place, format!("{}: {} wait", socket.at, socket.waiting))
    }))
}

/// Handshakes that found no room.
fn syn_backlog(stack: &Meanwhile) -> Option<Finding> {
    let [dropped, cookies] = ["TcpExtTCPReqQFullDrop", "TcpExtTCPReqQFullDoCookies"];
    let total = stack.total(dropped).saturating_add(stack.total(cookies));
    let (lost, answered) = (stack.now(dropped), stack.now(cookies));
    if total == 0 {
        return None;
    }
    let what = format!(
        "{total} SYNs found the backlog of their service full; during this audit {lost} were \
         dropped and {answered} answered with a cookie"
    );
    Some(
        Finding::of("syn-backlog", severity(lost.saturating_add(answered)), what)
            .read(NETSTAT, format!("TCPReqQFullDrop {}", stack.total(dropped)))
            .read(NETSTAT, format!("TCPReqQFullDoCookies {}", stack.total(cookies)))
            .because(
                "a SYN flood at a service of this machine, or a backlog that is too short; \
                 conntrack has an entry for each of them as well",
            )
            .tune("ctguard run -i IFACE")
            .by_hand(format!("sysctl -w {SOMAXCONN}=4096    # then restart the service")),
    )
}

fn small(key: &str, most: u64, better: u64) -> Finding {
    Finding::note("small-backlog", format!("{key} is {most}, and services listen here"))
        .read(sysctl_path(key), most)
        .because(
            "a burst of as many connections is lost, or answered with cookies; a service must be \
             restarted to get more",
        )
        .by_hand(format!("sysctl -w {key}={better}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::testing::Machine;

    const LISTENING: &str = "sl local_address\n\
        0: 00000000:0050 00000000:0000 0A 00000000:00000081 00:00000000\n\
        1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000\n";

    #[test]
    fn syn_cookies_that_are_off_are_found() {
        let machine = Machine::healthy("services-cookies");
        machine.write("/proc/sys/net/ipv4/tcp_syncookies", "0\n");
        assert_eq!(machine.checks(), ["syn-cookies"]);
    }

    #[test]
    fn a_small_backlog_counts_only_where_somebody_listens() {
        let machine = Machine::healthy("services-small");
        let local = LISTENING.replace("00000000:0050", "0100007F:0050");
        machine.write("/proc/net/tcp", &local);
        machine.write("/proc/sys/net/core/somaxconn", "128\n");
        machine.write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "128\n");
        assert!(machine.audit().notes("small-backlog").is_empty());
        machine.write("/proc/net/tcp", LISTENING);
        assert_eq!(machine.audit().notes("small-backlog").len(), 1, "cookies are on");
        machine.write("/proc/sys/net/ipv4/tcp_syncookies", "0\n");
        assert_eq!(machine.audit().notes("small-backlog").len(), 2);
        machine.write("/proc/net/tcp", &local);
        assert!(machine.audit().notes("small-backlog").is_empty(), "nobody reaches it");
    }

    /// Fails when an overflow of last month is a warning, or one of now is none.
    #[test]
    fn queues_that_overflow_now_are_told_from_those_that_did() {
        let netstat = |overflows, cookies| {
            format!("TcpExt: ListenOverflows TCPReqQFullDoCookies\nTcpExt: {overflows} {cookies}\n")
        };
        let machine = Machine::healthy("services-overflow");
        machine.write("/proc/net/tcp", LISTENING);
        let counted = |text: &str| {
            machine.write(NETSTAT, text);
            crate::host::Statistics::of_stack(machine.host()).unwrap()
        };
        let (none, some, more) =
            (counted(&netstat(0, 0)), counted(&netstat(7, 9)), counted(&netstat(8, 11)));
        let found = |before, after| {
            let mut findings = Findings::default();
            check(machine.host(), &Meanwhile { before, after }, &mut findings);
            findings
                .found
                .into_iter()
                .map(|found| (found.check, found.severity))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(none.clone(), none), []);
        let past = [("accept-queue", Severity::Note), ("syn-backlog", Severity::Note)];
        assert_eq!(found(some.clone(), some.clone()), past);
        let now = [("accept-queue", Severity::Warning), ("syn-backlog", Severity::Warning)];
        assert_eq!(found(some, more), now);
        let audit = machine.audit();
        let named = &audit.notes("accept-queue")[0].read[1];
        assert_eq!(named.value, "0.0.0.0:80: 129 wait");
    }
}
