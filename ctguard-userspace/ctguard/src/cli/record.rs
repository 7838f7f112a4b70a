//! What a command did, as an event: `ctguard events` shows it beside what the daemon did.

use super::CliError;
use crate::{event_file::EventFile, events::What, terminal::complain};

/// What was done stays done if it cannot be recorded.
pub(super) fn record(what: What) {
    let kept = EventFile::of_this_namespace()
        .map_err(CliError::cannot("find out the network namespace"))
        .and_then(|events| Ok(events.add(what)?));
    if let Err(error) = kept {
        complain(format_args!("warning: `ctguard events` lacks this: {}", error.sentence()));
    }
}
