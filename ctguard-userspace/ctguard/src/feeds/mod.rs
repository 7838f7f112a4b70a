//! Lists that are kept elsewhere: read by a thread for each, merged and written by one for all.

mod command;
mod crowdsec;
mod files;
mod http;
mod keeper;
mod merge;
mod nft;
mod reader;
mod status;
mod stop;
mod text;
mod watch;

use std::sync::mpsc::{Receiver, Sender, channel};

use ctguard_kernel::bpf::Pins;
use ctguard_settings::Feed;

use self::keeper::{Keeper, Message};
pub(crate) use self::status::{FeedStatus, FeedsStatus, feeds_status};
use crate::{daemon::Background, events::What};

/// The daemon's end of all feeds.
#[derive(Debug, Default)]
pub(crate) struct Feeds(Option<Ends>);

#[derive(Debug)]
struct Ends {
    messages: Sender<Message>,
    events: Receiver<What>,
}

impl Feeds {
    /// Follows these feeds from here on, and no others. `has_entries` says whether their lists have any.
    pub(crate) fn configure(
        &mut self,
        pins: &Pins,
        feeds: &[Feed],
        has_entries: bool,
    ) -> anyhow::Result<()> {
        // Entries that a former daemon wrote have to go even if there are no feeds any more.
        let is_unused =
            feeds.is_empty() && !has_entries && feeds_status() == FeedsStatus::default();
        if self.0.is_none() && is_unused {
            return Ok(());
        }
        match &self.0 {
            Some(ends) => ends.messages.send(Message::Configure(feeds.to_vec()))?,
            None => self.0 = Some(start(pins, feeds.to_vec())?),
        }
        Ok(())
    }

    /// What has happened.
    pub(crate) fn events(&self) -> Vec<What> {
        self.0.iter().flat_map(|ends| ends.events.try_iter()).collect()
    }
}

fn start(pins: &Pins, feeds: Vec<Feed>) -> anyhow::Result<Ends> {
    let (messages, inbox) = channel();
    let (told, events) = channel();
    let keeper = Keeper::new(pins, messages.clone(), told)?;
    Background::start("ctguard-feeds", move || keeper.run(feeds, &inbox))?;
    Ok(Ends { messages, events })
}
