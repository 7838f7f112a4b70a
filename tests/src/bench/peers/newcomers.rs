//! Clients that open one connection each through the router, and how many do so at once.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpSocket},
    runtime::Builder,
    time::{sleep, timeout},
};

use crate::{
    addresses::{self, Family, TCP_PORT},
    netns::Handle,
    router::Network,
};

/// Whatever takes longer waited for a retransmission, which comes after a second.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Between two clients.
const EVERY: Duration = Duration::from_millis(8);

/// A server inside, until it is dropped.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// Accepts connections, and closes them when their clients do.
    pub(crate) fn start(inside: &Handle) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address = SocketAddr::new(Family::Ipv4.inside_server(), TCP_PORT);
        let thread = inside.spawn("bench-server", move || {
            Builder::new_current_thread().enable_all().build()?.block_on(async {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on {address}"))?;
                while !stopped.load(Ordering::Relaxed) {
                    let accepted = timeout(Duration::from_millis(50), listener.accept()).await;
                    if let Ok(Ok((mut stream, _))) = accepted {
                        tokio::spawn(async move { stream.read(&mut [0; 16]).await });
                    }
                }
                Ok(())
            })
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(_) | Ok(Err(_))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("ctguard-bench: the server inside failed");
        }
    }
}

/// Lets new clients connect for so long, and tells the part that did at once.
pub(crate) fn connect(network: &Network, lasts: Duration) -> Result<f64> {
    let server = SocketAddr::new(Family::Ipv4.published_server(), TCP_PORT);
    let clients = network.far.spawn("bench-clients", move || {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let number = lasts.as_millis() / EVERY.as_millis();
            let mut attempts = Vec::new();
            for client in 0..u16::try_from(number)?.min(addresses::FAR_CLIENTS) {
                attempts.push(tokio::spawn(attempt(client, server)));
                sleep(EVERY).await;
            }
            let (mut all, mut at_once) = (0.0, 0.0);
            for attempt in attempts {
                all += 1.0;
                at_once += f64::from(u8::from(attempt.await.context("a client panicked")??));
            }
            Ok(at_once / all)
        })
    })?;
    clients.join().map_err(|_| anyhow!("the clients panicked"))?
}

async fn attempt(client: u16, server: SocketAddr) -> Result<bool> {
    let socket = TcpSocket::new_v4().context("cannot make a socket")?;
    let address = Family::Ipv4.far_client(client);
    socket.bind(SocketAddr::new(address, 0)).with_context(|| format!("cannot bind {address}"))?;
    Ok(matches!(timeout(AT_ONCE, socket.connect(server)).await, Ok(Ok(_))))
}
