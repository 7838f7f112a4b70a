//! Admission: ceilings, the grant, the fallback rate, a dry run.

use anyhow::Result;
use ctguard_layout::{Class, Counter, Environment, Grant, Outcome, Policy, units::Ticks};
use ctguard_tests::{data_path::DataPath, frames::flags, require};

use crate::{
    packets::{self, LOCAL, LOCAL6, REMOTE, REMOTE6},
    row::{self, BURST, Row, challenged, drops, passes, refuses},
};
use Counter::{Flows, Wakeups};
use Outcome::{Admitted, RefusedFallback, RefusedGrant, RefusedSource};

/// Fails when a new flow of any class passes or falls for another reason than the one it meets
/// first, or when it is counted elsewhere, too often or not at all.
#[test]
fn a_new_flow_passes_only_within_its_ceiling_and_the_grant() -> Result<()> {
    if !require::root("a_new_flow_passes_only_within_its_ceiling_and_the_grant") {
        return Ok(());
    }
    row::check(&rows())
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (class, new) in CLASSES {
        rows.extend([
            passes("a new flow", new(200), &[Flows(Admitted, class)]),
            passes("the last of a burst", new(200), &[Flows(Admitted, class)])
                .after(move |path| spend(path, new, BURST - 1)),
            refuses("one more than a burst", new(200), RefusedSource, class)
                .after(move |path| spend(path, new, BURST)),
            passes("one more in a dry run", new(200), &[challenged(RefusedSource, class)])
                .after(move |path| spend(path, new, BURST))
                .after(dry_run),
            refuses("a spent grant", new(200), RefusedGrant, class).waking().without_grant(),
            refuses("the same where the filter answers", new(200), RefusedGrant, class)
                .waking()
                .without_grant()
                .where_environment(filter_answers),
            passes("the same in a dry run", new(200), &[challenged(RefusedGrant, class), Wakeups])
                .without_grant()
                .after(dry_run),
            passes("the wake-up mark", new(200), &[Flows(Admitted, class), Wakeups])
                .where_grant(|grant| grant.allowances[0].wake_at.store(0)),
            passes("the fallback rate", new(200), &[Flows(Admitted, class)]).where_grant(orphan),
            refuses("a spent fallback", new(200), RefusedFallback, class)
                .where_grant(orphan)
                .after_arrival_of(new(100)),
            passes("the same, dry run", new(200), &[challenged(RefusedFallback, class)])
                .where_grant(orphan)
                .after_arrival_of(new(100))
                .after(dry_run),
            passes("a spent fallback, fail-open", new(200), &[Flows(Admitted, class)])
                .where_grant(orphan)
                .after_arrival_of(new(100))
                .after(fail_open),
            refuses("a ceiling, fail-open", new(200), RefusedSource, class)
                .where_grant(orphan)
                .after(fail_open)
                .after(move |path| spend(path, new, BURST)),
        ]);
    }
    rows.push(
        drops(
            "another host of a spent IPv6 network",
            packets::udp("2001:db8:0:1:ffff::9", LOCAL6, 1),
            &[Flows(RefusedSource, Class::Udp)],
        )
        .after(|path| spend(path, |port| packets::udp(REMOTE6, LOCAL6, port.into()), BURST)),
    );
    rows.push(
        drops(
            "a segment above a ceiling",
            packets::tcp(REMOTE, LOCAL, 200, flags::ACK),
            &[Flows(RefusedSource, Class::Tcp)],
        )
        .after(|path| spend(path, |port| packets::syn(port.into()), BURST)),
    );
    rows.push(
        passes(
            "a flow of another class than the spent one",
            packets::udp(REMOTE, LOCAL, 1),
            &[Flows(Admitted, Class::Udp)],
        )
        .after(|path| spend(path, |port| packets::syn(port.into()), BURST)),
    );
    rows
}

/// Makes a new flow, told apart from others by a number.
type New = fn(u8) -> Vec<u8>;

/// One for each class.
const CLASSES: [(Class, New); 3] = [
    (Class::Tcp, |number| packets::syn(number.into())),
    (Class::Udp, |number| packets::udp(REMOTE, LOCAL, number.into())),
    (Class::Other, |number| packets::icmp(REMOTE, LOCAL, 8, number)),
];

fn spend(path: &mut DataPath, new: New, flows: u32) -> Result<()> {
    (0..flows).try_for_each(|flow| path.judge(&new(u8::try_from(flow)?)).map(|_| ()))
}

/// The daemon is gone; the fallback rate lets one flow in.
fn orphan(grant: &Grant) {
    grant.heartbeat.store(0);
    grant.fallback[0].interval.store(1_000_000_000 * Ticks::PER_JIFFY);
}

/// Nearly all of a flood takes the short way then.
fn filter_answers(environment: &mut Environment) {
    environment.daemon.lookup_options_bytes = 16;
    environment.daemon.known_complete = 1;
}

fn dry_run(path: &mut DataPath) -> Result<()> {
    path.set_policy(|policy| policy.switches = Policy::DRY_RUN)
}

fn fail_open(path: &mut DataPath) -> Result<()> {
    path.set_policy(|policy| policy.switches = Policy::FAIL_OPEN)
}
