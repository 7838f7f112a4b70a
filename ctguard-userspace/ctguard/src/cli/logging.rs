//! The daemon's log, on standard error.
//!
//! Standard error may be a pipe that nobody reads, or a terminal that was stopped with Ctrl-S. So a
//! thread writes the lines from a queue, and logging never waits.

use std::{
    io::{self, Write},
    iter, panic,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

use crate::terminal::{Terminal, visible};

/// Prefix of the eBPF program's log targets.
const PROGRAM: &str = "ctguard_program";

/// Lines that may wait; more are dropped and counted.
const CAPACITY: usize = 1024;

/// How long the daemon's end waits for its last lines.
const PATIENCE: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Sentences for people; `trace` adds what the program logs, and `RUST_LOG` whatever it names.
pub(super) fn start(trace: bool) -> io::Result<()> {
    let queue = Queue::start(CAPACITY, Terminal::stderr())?;
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info).filter_module("aya", LevelFilter::Warn);
    if trace {
        builder.filter_level(LevelFilter::Trace);
    }
    builder.parse_default_env();
    builder.format(|out, record| {
        let (target, text) = (record.target(), record.args().to_string());
        let text = visible(&text);
        match record.level() {
            _ if target.starts_with(PROGRAM) => writeln!(out, "trace: {text}"),
            Level::Error | Level::Warn => writeln!(out, "ctguard: warning: {text}"),
            Level::Info | Level::Debug | Level::Trace => writeln!(out, "ctguard: {text}"),
        }
    });
    builder.target(Target::Pipe(Box::new(queue.clone())));
    builder.init();
    panic::set_hook(Box::new(|panic| {
        say(&format!("ctguard: {panic}"));
        finish();
    }));
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Writes a line to standard error, after those in the queue.
pub(super) fn say(line: &str) {
    let line = format!("{}\n", visible(line));
    let _ = match QUEUE.get() {
        Some(queue) => queue.clone().write_all(line.as_bytes()),
        None => Terminal::stderr().write_all(line.as_bytes()),
    };
}

/// Waits until all lines are written, but at most [`PATIENCE`].
pub(super) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(PATIENCE);
    }
}

#[derive(Clone)]
struct Queue {
    waiting: SyncSender<Waiting>,
    dropped: Arc<AtomicU64>,
}

enum Waiting {
    Line(Vec<u8>),
    /// Dropped when all lines before it are written.
    End(SyncSender<()>),
}

impl Queue {
    fn start(capacity: usize, out: impl Write + Send + 'static) -> io::Result<Self> {
        let (waiting, lines) = sync_channel(capacity);
        let queue = Self { waiting, dropped: Arc::default() };
        let dropped = Arc::clone(&queue.dropped);
        let thread = thread::Builder::new().name("ctguard-log".to_owned());
        thread.spawn(move || write_lines(&lines, &dropped, out))?;
        Ok(queue)
    }

    fn finish(&self, patience: Duration) {
        let (end, ended) = sync_channel(0);
        // Nobody reads if the queue is full.
        if self.waiting.try_send(Waiting::End(end)).is_ok() {
            let _ = ended.recv_timeout(patience);
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.waiting.try_send(Waiting::Line(line.to_owned())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(waiting: &Receiver<Waiting>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(first) = waiting.recv() {
        let mut end = None;
        for next in iter::once(first).chain(waiting.try_iter()) {
            match next {
                Waiting::Line(line) => {
                    if out.write_all(&line).is_err() {
                        dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Waiting::End(waits) => end = Some(waits),
            }
        }
        let count = dropped.swap(0, Ordering::Relaxed);
        if count > 0 {
            let line =
                format!("ctguard: warning: {count} lines were dropped because nobody read them\n");
            if out.write_all(line.as_bytes()).is_err() {
                dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
        drop(end);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Sender, channel},
    };

    use super::*;

    /// A terminal that is stopped until somebody lets it go on.
    struct Terminal {
        goes_on: Receiver<()>,
        shown: Arc<Mutex<String>>,
    }

    impl Terminal {
        fn stopped() -> (Self, Sender<()>, Arc<Mutex<String>>) {
            let (go_on, goes_on) = channel();
            let shown = Arc::default();
            (Self { goes_on, shown: Arc::clone(&shown) }, go_on, shown)
        }
    }

    impl Write for Terminal {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // The other end is dropped when it goes on.
            let _ = self.goes_on.recv();
            self.shown.lock().unwrap().push_str(str::from_utf8(line).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Hangs when who logs waits for who reads.
    #[test]
    fn lines_beyond_those_that_may_wait_are_dropped_and_counted_once() {
        const LINES: usize = 100;
        let (terminal, go_on, shown) = Terminal::stopped();
        let mut queue = Queue::start(10, terminal).unwrap();
        for number in 0..LINES {
            queue.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        queue.finish(Duration::ZERO);
        drop(go_on);
        // As soon as there is room again.
        while queue.dropped.load(Ordering::Relaxed) > 0 {
            thread::yield_now();
        }
        queue.finish(Duration::from_mins(1));
        let shown = shown.lock().unwrap();
        let (lines, rest) = shown.split_once("ctguard: warning: ").unwrap();
        let written = lines.lines().count();
        assert!(written >= 10 && lines.starts_with("line 0\nline 1\n"), "{shown}");
        let dropped = format!("{} lines were dropped because nobody read them\n", LINES - written);
        assert_eq!(rest, dropped);
    }

    #[test]
    fn the_end_waits_for_every_line() {
        let (terminal, go_on, shown) = Terminal::stopped();
        let mut queue = Queue::start(10, terminal).unwrap();
        queue.write_all(b"last words\n").unwrap();
        drop(go_on);
        queue.finish(Duration::from_mins(1));
        assert_eq!(*shown.lock().unwrap(), "last words\n");
    }
}
