//! One TCP connection of each far client that is known before the flood: opened and answered once,
//! which makes its entry ASSURED, and then silent until the end.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{net::TcpStream, task::JoinSet, time::sleep};

use super::{
    established::{self, Exchanges},
    groups,
};
use crate::addresses::{Family, TCP_ECHO_PORT};

/// Connections that are held.
pub(super) const CONNECTIONS: u32 = groups::SOURCES as u32 / 2;
/// They open one after the other, so that no ceiling sees them as a burst.
const SPACING: Duration = Duration::from_millis(2);

/// Connections that are open, and say nothing.
pub(super) struct Held(Vec<TcpStream>);

/// Opens a connection from each known far client.
pub(super) async fn open(family: Family) -> Result<Held> {
    let to = SocketAddr::new(family.published_server(), TCP_ECHO_PORT);
    let mut opening = JoinSet::new();
    for source in groups::known() {
        let from = SocketAddr::new(family.far_client(source), 0);
        opening.spawn(established::connect(from, to));
        sleep(SPACING).await;
    }
    let opened: Vec<io::Result<TcpStream>> = opening.join_all().await;
    let streams = opened.into_iter().collect::<io::Result<_>>();
    Ok(Held(streams.context("a connection of a known client does not open")?))
}

impl Held {
    /// Asks each connection whether it lives, and closes it.
    pub(super) async fn close(self) -> Exchanges {
        let mut asked: JoinSet<Exchanges> =
            self.0.into_iter().map(established::close_if_alive).collect();
        let mut sum = Exchanges::default();
        while let Some(ended) = asked.join_next().await {
            sum.add(ended.unwrap_or_default());
        }
        sum
    }
}
