//! The daemon's log, on standard error, or in the journal if standard error leads there.
//!
//! Standard error may be a pipe that nobody reads, or a terminal that was stopped with Ctrl-S. So a
//! thread writes the lines from a queue, and logging never waits.

use std::{
    env,
    io::{self, Write},
    iter, panic,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use env_logger::{Builder, DEFAULT_FILTER_ENV, Target};
use log::{Level, LevelFilter};

use systemd_journal_logger::JournalLog;

use super::journal::{self, Owned, ToJournal};
use crate::terminal::{Terminal, visible};
use ctguard_kernel::terminal::write_from_background;

/// Prefix of the eBPF program's log targets.
const PROGRAM: &str = "ctguard_program";

/// Lines that may wait; more are dropped and counted.
const CAPACITY: usize = 1024;

/// How long the daemon's end waits for its last lines.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Sentences for people; `trace` adds what the program logs, and `RUST_LOG` whatever it names.
pub(super) fn start(trace: bool) -> io::Result<()> {
    write_from_background();
    let journal = journal::open();
    let is_journal = journal.is_some();
    let queue = Queue::start(CAPACITY, Terminal::stderr(), journal)?;
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info).filter_module("aya", LevelFilter::Warn);
    if trace {
        builder.filter_level(LevelFilter::Trace);
    }
    // What of it cannot be read is printed.
    if let Ok(filters) = env::var(DEFAULT_FILTER_ENV) {
        builder.parse_filters(&visible(&filters));
    }
    builder.format(|out, record| {
        let (target, text) = (record.target(), record.args().to_string());
        let text = visible(&text);
        match record.level() {
            _ if target.starts_with(PROGRAM) => writeln!(out, "trace: {text}"),
            Level::Error | Level::Warn => writeln!(out, "ctguard: warning: {text}"),
            Level::Info | Level::Debug | Level::Trace => writeln!(out, "ctguard: {text}"),
        }
    });
    if is_journal {
        let filter = builder.build();
        log::set_max_level(filter.filter());
        log::set_boxed_logger(Box::new(ToJournal { filter, queue: queue.clone() }))
            .map_err(io::Error::other)?;
    } else {
        builder.target(Target::Pipe(Box::new(queue.clone())));
        builder.init();
    }
    panic::set_hook(Box::new(|panic| {
        say(&format!("ctguard: {panic}"));
        finish();
    }));
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Writes the last words of a process to standard error, behind the lines that wait.
pub(super) fn say(line: &str) {
    let line = format!("{}\n", visible(line)).into_bytes();
    // Nobody may be there to read it.
    if let Some(queue) = QUEUE.get() {
        queue.put(Waiting::Line(line), PATIENCE);
    } else {
        let _ = Terminal::stderr().write_all(&line);
    }
}

/// Waits until all lines are written, but at most [`PATIENCE`].
pub(super) fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(PATIENCE);
    }
}

#[derive(Clone)]
pub(super) struct Queue {
    waiting: SyncSender<Waiting>,
    dropped: Arc<AtomicU64>,
}

enum Waiting {
    Line(Vec<u8>),
    Record(Owned),
    /// Dropped when all lines before it are written.
    End(SyncSender<()>),
}

impl Queue {
    fn start(
        capacity: usize,
        out: impl Write + Send + 'static,
        journal: Option<JournalLog>,
    ) -> io::Result<Self> {
        let (waiting, lines) = sync_channel(capacity);
        let queue = Self { waiting, dropped: Arc::default() };
        let dropped = Arc::clone(&queue.dropped);
        let thread = thread::Builder::new().name("ctguard-log".to_owned());
        thread.spawn(move || write_lines(&lines, &dropped, out, journal.as_ref()))?;
        Ok(queue)
    }

    pub(super) fn put_record(&self, record: Owned) {
        self.put_now(Waiting::Record(record));
    }

    fn put_now(&self, waiting: Waiting) {
        if self.waiting.try_send(waiting).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn finish(&self, patience: Duration) {
        let (end, ended) = sync_channel(0);
        if self.put(Waiting::End(end), patience) {
            let _ = ended.recv_timeout(patience);
        }
    }

    /// Waits for room, which there is soon if anybody reads; whether there was.
    fn put(&self, mut waiting: Waiting, patience: Duration) -> bool {
        let began = Instant::now();
        loop {
            match self.waiting.try_send(waiting) {
                Ok(()) => return true,
                Err(TrySendError::Full(again)) if began.elapsed() < patience => waiting = again,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
            thread::sleep(POLL);
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put_now(Waiting::Line(line.to_owned()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(
    waiting: &Receiver<Waiting>,
    dropped: &AtomicU64,
    mut out: impl Write,
    journal: Option<&JournalLog>,
) {
    while let Ok(first) = waiting.recv() {
        let mut end = None;
        for next in iter::once(first).chain(waiting.try_iter()) {
            match next {
                Waiting::Line(line) => {
                    if out.write_all(&line).is_err() {
                        dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Waiting::Record(record) => {
                    let sent = journal.is_some_and(|journal| record.send(journal).is_ok());
                    if !sent && out.write_all(record.line().as_bytes()).is_err() {
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
        let mut queue = Queue::start(10, terminal, None).unwrap();
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

    /// Fails when lines are lost at the end because more could not wait, though somebody reads.
    #[test]
    fn the_end_waits_for_room_in_a_full_queue() {
        let (terminal, go_on, shown) = Terminal::stopped();
        let mut queue = Queue::start(10, terminal, None).unwrap();
        while queue.dropped.load(Ordering::Relaxed) == 0 {
            queue.write_all(b"line\n").unwrap();
        }
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(go_on);
        });
        queue.finish(Duration::from_mins(1));
        assert!(shown.lock().unwrap().matches("line\n").count() >= 10);
        reader.join().unwrap();
    }

    #[test]
    fn the_end_waits_for_every_line() {
        let (terminal, go_on, shown) = Terminal::stopped();
        let mut queue = Queue::start(10, terminal, None).unwrap();
        queue.write_all(b"last words\n").unwrap();
        drop(go_on);
        queue.finish(Duration::from_mins(1));
        assert_eq!(*shown.lock().unwrap(), "last words\n");
    }
}
