//! What happens to the guard in the midst of a flood.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::guard::Standing;

/// What happens to the guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// It is there before the flood, and until the end.
    #[default]
    Throughout,
    /// It is started when the flood has had its way for so long, before there is any other traffic.
    After(Duration),
    /// It is started when the flood has had its way for so long.
    Late(Duration),
    /// Its daemon is killed (SIGKILL) and started again.
    Outage {
        /// So long after the flood's begin.
        after: Duration,
        /// So much later.
        lasts: Duration,
    },
}

/// Moments of a script that was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// When the daemon was killed.
    pub killed: Option<Instant>,
    /// When a daemon was started in the flood, and how long it took to be ready.
    pub started: Option<(Instant, Duration)>,
}

/// Somebody wants the lab to end: a signal came.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; everything was put back")
    }
}

impl std::error::Error for Interrupted {}

/// Plays a script, whose times count from `flood`, and returns with its last event.
pub(crate) fn play(
    script: Script,
    guard: &mut Standing,
    start: impl FnOnce() -> Result<Standing>,
    flood: Instant,
    interrupted: &AtomicBool,
) -> Result<Played> {
    let mut played = Played::default();
    match script {
        Script::Throughout | Script::After(_) => {}
        Script::Late(after) => {
            wait_until(flood + after, interrupted)?;
            let began = Instant::now();
            *guard = start().context("cannot start the guard in the flood")?;
            played.started = Some((began, began.elapsed()));
        }
        Script::Outage { after, lasts } => {
            wait_until(flood + after, interrupted)?;
            played.killed = Some(Instant::now());
            guard.kill()?;
            wait_until(flood + after + lasts, interrupted)?;
            let began = Instant::now();
            guard.start_again().context("cannot start the daemon again")?;
            played.started = Some((began, began.elapsed()));
        }
    }
    Ok(played)
}

/// Sleeps, and fails as soon as the lab is interrupted.
pub(crate) fn wait_until(time: Instant, interrupted: &AtomicBool) -> Result<()> {
    while let Some(left) = time.checked_duration_since(Instant::now()) {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    Ok(())
}
