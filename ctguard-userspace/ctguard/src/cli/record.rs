//! What a command did, as an event: `ctguard events` shows it beside what the daemon did.

use super::CliError;
use crate::{event_file::EventFile, events::What, files::FileError, terminal::complain};

/// What was done stays done if it cannot be recorded.
pub(super) fn record(what: What) {
    keep(|events| events.add(what));
}

/// The same for a change of a list, of which a script may make many.
pub(super) fn record_of_list(change: String) {
    keep(|events| events.add_of_list(What::Changed { changes: vec![change] }));
}

fn keep(add: impl FnOnce(&EventFile) -> Result<(), FileError>) {
    let kept = EventFile::of_this_namespace()
        .map_err(CliError::cannot("find out the network namespace"))
        .and_then(|events| Ok(add(&events)?));
    if let Err(error) = kept {
        complain(format_args!("warning: `ctguard events` lacks this: {}", error.sentence()));
    }
}
