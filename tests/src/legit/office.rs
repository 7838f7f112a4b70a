//! Many TCP connections behind one far address, as an office has them: each speaks now and then.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{task::JoinSet, time::sleep};

use super::established::{self, Open};
use crate::addresses::{Family, TCP_ECHO_PORT};

/// They open one after the other, at a pace that no ceiling sees as a burst.
const SPACING: Duration = Duration::from_millis(5);
/// Between two pings of a connection.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How long it takes to open so many.
pub(super) fn opens_in(connections: u32) -> Duration {
    // Each waits for two round trips, and the machine has other things to do.
    2 * SPACING * connections
}

/// Opens the connections.
pub(super) async fn open(family: Family, connections: u32) -> Result<Open> {
    let to = SocketAddr::new(family.published_server(), TCP_ECHO_PORT);
    let from = SocketAddr::new(family.office(), 0);
    let stop = Arc::new(AtomicBool::new(false));
    let mut opening = JoinSet::new();
    for _ in 0..connections {
        opening.spawn(established::connect(from, to));
        sleep(SPACING).await;
    }
    let mut exchanges = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        let stream = opened.context("a task of the office failed")?;
        let stream = stream.context("a connection of the office does not open")?;
        exchanges.spawn(established::keep_tcp(stream, Arc::clone(&stop), PING_EVERY));
    }
    Ok(Open { stop, exchanges })
}
