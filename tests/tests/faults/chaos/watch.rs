//! What must hold all the time: an exchange that is answered, and a table within its promise.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ctguard_tests::{
    addresses::{Family, TCP_ECHO_PORT},
    netns::Handle,
    product::wait_for,
    router::Network,
    sysctl,
};

const PING: [u8; 16] = *b"still there? ...";
const PING_EVERY: Duration = Duration::from_millis(50);
/// TCP repeats itself for far longer; whoever waits for an answer gives up sooner.
const GIVEN_UP: Duration = Duration::from_mins(2);

/// A connection from far to an inside server, which pings until it is dropped.
pub(super) struct Exchange {
    state: Arc<Pinging>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Pinging {
    answers: AtomicU64,
    stop: AtomicBool,
    /// Held from a ping to its answer.
    between: Mutex<()>,
}

impl Exchange {
    pub(super) fn open(network: &Network) -> Result<Self> {
        let server = SocketAddr::new(Family::Ipv4.inside_server(), TCP_ECHO_PORT);
        let listener = network.inside.run(|| Ok(TcpListener::bind(server)?))?;
        thread::spawn(move || -> io::Result<()> {
            let mut stream = listener.accept()?.0;
            stream.set_nodelay(true)?;
            let mut bytes = PING;
            loop {
                stream.read_exact(&mut bytes)?;
                stream.write_all(&bytes)?;
            }
        });
        let published = SocketAddr::new(Family::Ipv4.published_server(), TCP_ECHO_PORT);
        let mut stream = network
            .far
            .run(|| Ok(TcpStream::connect(published)?))
            .context("the exchange does not open")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GIVEN_UP))?;
        let state = Arc::new(Pinging::default());
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            while !shared.stop.load(Relaxed) {
                let between = shared.between.lock().unwrap_or_else(PoisonError::into_inner);
                stream.write_all(&PING)?;
                stream.read_exact(&mut [0; PING.len()])?;
                drop(between);
                shared.answers.fetch_add(1, Relaxed);
                thread::sleep(PING_EVERY);
            }
            Ok(())
        });
        Ok(Self { state, thread: Some(thread) })
    }

    /// Nothing is under way while this lives.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.state.between.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to a ping that was sent after this was called.
    pub(super) fn ensure_answered(&mut self) -> Result<()> {
        let before = self.state.answers.load(Relaxed);
        wait_for("answers on the established exchange", || {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                let ended = self.thread.take().map(JoinHandle::join);
                return Err(anyhow!("the established exchange broke: {ended:?}"));
            }
            Ok((self.state.answers.load(Relaxed) >= before + 2).then_some(()))
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.state.stop.store(true, Relaxed);
    }
}

/// What is promised of the table at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// A daemon steers: the target, and what the kernel makes of packets that were admitted.
    Guarded,
    /// The program works alone.
    Alone,
    /// An interface is open, or nothing is dropped.
    Nothing,
}

const TARGET_PPM: u64 = 850_000;

impl Promise {
    fn most_ppm(self) -> u64 {
        match self {
            Self::Guarded => TARGET_PPM + 20_000,
            Self::Alone => TARGET_PPM + 100_000,
            Self::Nothing => u64::MAX,
        }
    }

    pub(super) fn is_kept(self, fill_ratio: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a million parts")]
        let most = self.most_ppm() as f64 / 1e6;
        fill_ratio <= most
    }
}

/// Reads the table's fill again and again, and remembers when it was beyond the promise.
pub(super) struct FillWatch {
    state: Arc<Watching>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Watching {
    most_ppm: AtomicU64,
    highest_ppm: AtomicU64,
    beyond: AtomicU64,
    stop: AtomicBool,
}

impl FillWatch {
    pub(super) fn start(router: &Handle) -> Result<Self> {
        let state = Arc::new(Watching {
            most_ppm: Promise::Nothing.most_ppm().into(),
            highest_ppm: 0.into(),
            beyond: 0.into(),
            stop: false.into(),
        });
        let shared = Arc::clone(&state);
        let thread = router.spawn("chaos-fill", move || {
            while !shared.stop.load(Relaxed) {
                let most = shared.most_ppm.load(Relaxed);
                let read = |name: &str| -> Result<u64> {
                    Ok(sysctl::read(&format!("net.netfilter.nf_conntrack_{name}"))?.parse()?)
                };
                let ppm = read("count")? * 1_000_000 / read("max")?.max(1);
                // The promise may have changed between.
                if ppm > most && most == shared.most_ppm.load(Relaxed) {
                    shared.beyond.fetch_max(ppm, Relaxed);
                }
                shared.highest_ppm.fetch_max(ppm, Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    pub(super) fn promise(&self, promise: Promise) {
        self.state.most_ppm.store(promise.most_ppm(), Relaxed);
    }

    /// The highest fill since this was asked last; fails if it was beyond the promise of its time.
    pub(super) fn ensure_kept(&self) -> Result<f64> {
        let is_watched = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        ensure!(is_watched, "nobody reads how full the table is any more");
        let beyond = self.state.beyond.swap(0, Relaxed);
        ensure!(beyond == 0, "the table was fuller than promised: {beyond} parts of a million");
        let highest = self.state.highest_ppm.swap(0, Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let percent = highest as f64 / 1e4;
        Ok(percent)
    }
}

impl Drop for FillWatch {
    fn drop(&mut self) {
        self.state.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
