//! The log as records of systemd's journal: priorities, and an event's fields.
//!
//! What a record borrows cannot wait in a queue, so it is copied.

use std::{env, io};

use env_logger::Logger;
use log::{
    Level, Log, Metadata, Record,
    kv::{self, Key, Value, VisitSource},
};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use super::logging::Queue;
use crate::{log_fields::Fields, terminal::visible};

/// What is logged.
pub(super) struct Owned {
    level: Level,
    target: String,
    text: String,
    fields: Fields,
}

/// The journal, if standard error leads to it.
pub(super) fn open() -> Option<JournalLog> {
    // The variable may be inherited by whoever redirects standard error.
    if env::var_os("JOURNAL_STREAM").is_none() || !connected_to_journal() {
        return None;
    }
    let journal = JournalLog::new().ok()?;
    Some(journal.with_syslog_identifier(env!("CARGO_PKG_NAME").to_owned()))
}

impl Owned {
    pub(super) fn new(record: &Record<'_>) -> Self {
        let mut fields = Fields::default();
        // The collector takes all.
        let _ = record.key_values().visit(&mut Collector(&mut fields));
        Self {
            level: record.level(),
            target: record.target().to_owned(),
            text: visible(&record.args().to_string()).into_owned(),
            fields,
        }
    }

    pub(super) fn send(&self, journal: &JournalLog) -> io::Result<()> {
        let mut record = Record::builder();
        record.level(self.level).target(&self.target).key_values(&self.fields);
        journal.journal_send(&record.args(format_args!("{}", self.text)).build())
    }

    /// As a line, in case the journal does not take it.
    pub(super) fn line(&self) -> String {
        format!("ctguard: {}\n", self.text)
    }
}

struct Collector<'f>(&'f mut Fields);

impl<'kvs> VisitSource<'kvs> for Collector<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.0.push((key.to_string(), value.to_string()));
        Ok(())
    }
}

/// Filters as `RUST_LOG` says, and queues.
pub(super) struct ToJournal {
    pub(super) filter: Logger,
    pub(super) queue: Queue,
}

impl Log for ToJournal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.queue.put_record(Owned::new(record));
        }
    }

    fn flush(&self) {}
}
