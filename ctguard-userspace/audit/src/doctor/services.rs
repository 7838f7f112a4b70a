//! Whether this machine's own services cope with their clients: SYN cookies and backlogs.

use super::{
    finding::{Finding, Findings, Severity},
    guard::START,
    history::Meanwhile,
};
use crate::host::{Host, LISTENERS, Listener, NETSTAT, sysctl_path};

const SYN_COOKIES: &str = "net.ipv4.tcp_syncookies";
/// The longest backlog that a socket can ask for (`__sys_listen`, `net/socket.c`), also for
/// connections that are not complete (`inet_csk_reqsk_queue_is_full`).
const SOMAXCONN: &str = "net.core.somaxconn";
/// Counts only while SYN cookies are off (`tcp_conn_request`, `net/ipv4/tcp_input.c`).
const SYN_BACKLOG: &str = "net.ipv4.tcp_max_syn_backlog";
/// The default before Linux 5.4; later it is 4096.
const SMALL_SOMAXCONN: u64 = 128;
const SMALL_SYN_BACKLOG: u64 = 1023;
const NAMED: usize = 3;

pub(super) fn check(host: &Host, stack: &Meanwhile, findings: &mut Findings) {
    let cookies = findings.read("syn-cookies", host.sysctl(SYN_COOKIES)).flatten();
    let cookies_are_off = cookies.as_deref() == Some("0");
    let without_cookies = Finding::warning("syn-cookies", "SYN cookies are off")
        .read(sysctl_path(SYN_COOKIES), 0)
        .because(
            "a SYN flood at a service of this machine fills its backlog; with SYN cookies it would \
             still answer",
        )
        .by_hand(format!("sysctl -w {SYN_COOKIES}=1"));
    findings.add(without_cookies.when(cookies_are_off));
    let listeners = findings.read("listeners", Listener::read(host)).unwrap_or_default();
    findings.add(accept_queue(stack, &listeners));
    findings.add(syn_backlog(stack));
    if listeners.iter().all(Listener::is_local) {
        return;
    }
    small(host, SOMAXCONN, SMALL_SOMAXCONN, findings);
    if cookies_are_off {
        small(host, SYN_BACKLOG, SMALL_SYN_BACKLOG, findings);
    }
}

fn severity(now: u64) -> Severity {
    if now > 0 { Severity::Warning } else { Severity::Note }
}

fn accept_queue(stack: &Meanwhile, listeners: &[Listener]) -> Option<Finding> {
    let name = "TcpExtListenOverflows";
    let (total, now) = (stack.total(name), stack.now(name));
    let what = format!("{total} connections met a full accept queue, {now} during this audit");
    let mut longest: Vec<_> = listeners.iter().filter(|socket| socket.waiting > 0).collect();
    longest.sort_by_key(|socket| std::cmp::Reverse(socket.waiting));
    let finding = Finding::of("accept-queue", severity(now), what)
        .read(NETSTAT, format!("ListenOverflows {total}"))
        .because(format!(
            "a service accepts connections too slowly, or has a short backlog (listen(2), limited by \
             {SOMAXCONN}): its clients wait for seconds"
        ))
        .by_hand("ss -ltn    # Recv-Q: connections that wait; Send-Q: the backlog");
    let finding = longest.iter().take(NAMED).fold(finding, |finding, socket| {
        let place = LISTENERS[usize::from(socket.at.is_ipv6())];
        finding.read(place, format!("{}: {} waiting", socket.at, socket.waiting))
    });
    finding.when(total > 0)
}

fn syn_backlog(stack: &Meanwhile) -> Option<Finding> {
    let [dropped, cookies] = ["TcpExtTCPReqQFullDrop", "TcpExtTCPReqQFullDoCookies"];
    let total = stack.total(dropped).saturating_add(stack.total(cookies));
    let (lost, answered) = (stack.now(dropped), stack.now(cookies));
    let what = format!(
        "{total} SYNs met a full backlog; during this audit {lost} were dropped and {answered} \
         answered with a SYN cookie"
    );
    Finding::of("syn-backlog", severity(lost.saturating_add(answered)), what)
        .read(NETSTAT, format!("TCPReqQFullDrop {}", stack.total(dropped)))
        .read(NETSTAT, format!("TCPReqQFullDoCookies {}", stack.total(cookies)))
        .because(
            "a SYN flood at a service of this machine, or a backlog that is too short; every SYN also \
             takes an entry in the table",
        )
        .tune(START)
        .by_hand(format!("sysctl -w {SOMAXCONN}=4096    # then restart the service"))
        .when(total > 0)
}

fn small(host: &Host, key: &str, limit: u64, findings: &mut Findings) {
    let most = findings.number("small-backlog", host, key).filter(|most| *most <= limit);
    findings.add(most.map(|most| {
        let what = format!("{key} is only {most}, and services listen here");
        Finding::note("small-backlog", what)
            .read(sysctl_path(key), most)
            .because(
                "a larger burst of connections is dropped or answered with SYN cookies; services must \
                 be restarted to use a higher value",
            )
            .by_hand(format!("sysctl -w {key}=4096"))
    }));
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
        assert_eq!(named.value, "0.0.0.0:80: 129 waiting");
    }
}
