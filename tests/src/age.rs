//! Lets idle connections look as old as the lab has no time to wait for.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ctguard_kernel::conntrack::{self, TcpState};

use crate::{
    conntrack::{ConntrackTable, Tuple},
    crowd::Crowd,
    netns::Handle,
};

/// TCP's number.
const TCP: u8 = 6;

/// Takes from the time that the entries of a crowd's connections have left what would have passed, had
/// each spoken for the last time within `over`, evenly.
pub fn age(namespace: &Handle, crowd: Crowd, over: Duration) -> Result<()> {
    let members: HashSet<IpAddr> = (0..crowd.members).map(|index| crowd.member(index)).collect();
    let mut idle = Vec::new();
    namespace.run(|| {
        conntrack::dump(|entry| {
            let conntrack::Tuple { source: from, destination: to, key } = entry.original;
            let [first, second, third, fourth] = key.to_be_bytes();
            let from_port = u16::from_be_bytes([first, second]);
            let to_port = u16::from_be_bytes([third, fourth]);
            let is_theirs = members.contains(&from) && entry.protocol == TCP;
            if let Some(left) = entry.timeout_seconds
                && is_theirs
                && entry.tcp_state == Some(TcpState::Established)
            {
                idle.push((Tuple { from, to, protocol: TCP, from_port, to_port }, left));
            }
        })
        .context("cannot list the table")
    })?;
    // The table has no order that an age could follow.
    idle.sort_unstable_by_key(|(tuple, _)| (tuple.from_port, tuple.from));
    idle.dedup_by_key(|(tuple, _)| *tuple);
    let count = u32::try_from(idle.len())?;
    ensure!(count > 0, "nobody holds a connection that could be aged");
    let mut table = ConntrackTable::open(namespace)?;
    for ((tuple, left), number) in idle.iter().zip(1..) {
        let passed = u32::try_from((over * number / count).as_secs())?;
        table.set_time_left(tuple, left.saturating_sub(passed))?;
    }
    Ok(())
}
