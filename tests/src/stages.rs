//! How long each class of a guard was in which stage, by asking its status now and then.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::guard::Asker;

/// Each question starts a process, on the core that the daemon runs on.
const PERIOD: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(20);

/// Seconds by class and stage.
pub type StageSeconds = BTreeMap<String, BTreeMap<String, f64>>;

/// A thread that asks until it is stopped.
#[derive(Debug)]
pub struct StageWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<StageSeconds>>,
}

impl StageWatch {
    /// Starts asking.
    #[must_use]
    pub fn start(asker: Asker) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch(&asker, &stopped));
        Self { stop, thread: Some(thread) }
    }

    /// Stops asking; nothing is told where no status could be had.
    #[must_use]
    pub fn stop(mut self) -> StageSeconds {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for StageWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(asker: &Asker, stop: &AtomicBool) -> StageSeconds {
    let mut sum = StageSeconds::new();
    let mut since = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(status) = asker.status() {
            let now = Instant::now();
            add(&mut sum, &status, now - since);
            since = now;
        }
        let rest = Instant::now();
        while rest.elapsed() < PERIOD && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(STEP);
        }
    }
    sum
}

/// A stage counts for the time since the last answer.
fn add(sum: &mut StageSeconds, status: &Value, elapsed: Duration) {
    let Some(stages) = status.pointer("/stages").and_then(Value::as_object) else { return };
    for (class, stage) in stages {
        if let Some(stage) = stage.as_str() {
            let seconds = sum.entry(class.clone()).or_default().entry(stage.to_owned());
            *seconds.or_default() += elapsed.as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_without_stages_adds_nothing() {
        let mut sum = StageSeconds::new();
        add(&mut sum, &json!({"stage": "calm"}), Duration::from_secs(1));
        assert!(sum.is_empty());
        for stage in ["calm", "fair", "fair"] {
            add(&mut sum, &json!({"stages": {"tcp": stage}}), Duration::from_secs(1));
        }
        assert!((sum["tcp"]["fair"] - 2.0).abs() < 1e-9);
    }
}
