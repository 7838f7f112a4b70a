//! Guards interfaces that were not there when they were named, as soon as they are.
//!
//! An event of the kernel says that there is another interface or name. Nothing asks for single names,
//! which could have the kernel look for a module of that name.

use std::{io, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;

use super::{Guard, Guarded, bring_up::attach_one, guarded::position_of, known_flows};
use crate::{
    events::What,
    interfaces::{Held, Interfaces, InterfacesFile, Waited, memberless},
    sentence::sentence,
};
use ctguard_kernel::{
    bpf::{Attachment, is_attached, monotonic},
    lock::Lock,
    net::{Link, Refusal, Surroundings, lacks_members, resolve},
};

/// Somebody is changing settings, the device was made again just now, or a bond has no member.
const SOON: Duration = Duration::from_secs(1);
/// The kernel refused the program.
const LATER: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Debug)]
pub(crate) struct Waiting {
    names: Vec<Expected>,
    file: InterfacesFile,
    published: Option<Interfaces>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    waited: Waited,
    /// When to try again what failed.
    retry_at: Option<Duration>,
}

impl Waiting {
    pub(super) fn new() -> io::Result<Self> {
        let file = InterfacesFile::of_this_namespace()?;
        Ok(Self { names: Vec::new(), file, published: None })
    }

    pub(super) fn names(&self) -> Vec<Waited> {
        self.names.iter().map(|it| it.waited.clone()).collect()
    }

    /// Waits for these and no others from here on; what is known of some of them stays.
    pub(super) fn replace(&mut self, names: &[String]) {
        self.names.retain(|it| names.contains(&it.waited.name));
        for name in names {
            self.expect(name.clone());
        }
    }

    /// Waits for `name` besides.
    fn expect(&mut self, name: String) {
        if self.names.iter().all(|it| it.waited.name != name) {
            let waited = Waited { name, obstacle: None };
            self.names.push(Expected { waited, retry_at: None });
        }
    }

    fn forget(&mut self, name: &str) {
        self.names.retain(|it| it.waited.name != name);
    }

    /// Whether something that failed is to be tried again.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.names.iter().any(|it| it.retry_at.is_some_and(|at| now >= at))
    }

    /// Whether it is too early to try `name` again.
    fn is_early(&self, name: &str, now: Duration) -> bool {
        let mut own = self.names.iter().filter(|it| it.waited.name == name);
        own.any(|it| it.retry_at.is_some_and(|at| now < at))
    }

    /// Notes why `name` cannot be guarded yet; whether that is news.
    fn note(&mut self, name: &str, obstacle: Option<&str>, retry_at: Option<Duration>) -> bool {
        let Some(own) = self.names.iter_mut().find(|it| it.waited.name == name) else {
            return false;
        };
        own.retry_at = retry_at;
        let is_news = own.waited.obstacle.as_deref() != obstacle;
        own.waited.obstacle = obstacle.map(str::to_owned);
        is_news
    }

    fn postpone(&mut self, name: &str, retry_at: Duration) {
        for own in self.names.iter_mut().filter(|it| it.waited.name == name) {
            own.retry_at = Some(retry_at);
        }
    }
}

/// Indices of devices that are guarded as soon as they can be.
pub(super) fn leads(guard: &Guard, links: &[Link]) -> Vec<u32> {
    let awaited = guard.waiting.names.iter().map(|it| it.waited.name.clone());
    let names = awaited.chain(moved(&guard.interfaces, links));
    names.filter_map(|name| Some(resolve(links, &name).ok()?.link.index)).collect()
}

/// Attaches to what has come.
pub(super) fn follow(guard: &mut Guard, around: &Surroundings) {
    for name in moved(&guard.interfaces, &around.links) {
        guard.waiting.expect(name);
    }
    for Waited { name, .. } in guard.waiting.names() {
        let link = match resolve(&around.links, &name) {
            Ok(resolved) => resolved.link,
            Err(Refusal::Unknown { .. }) => {
                guard.waiting.note(&name, None, None);
                continue;
            }
            Err(refusal) => {
                refuse(guard, &name, refusal.to_string(), None);
                continue;
            }
        };
        let now = monotonic();
        if guard.waiting.is_early(&name, now) {
            continue;
        }
        match arrive(guard, around, &link) {
            Ok(Arrival::Guarded) => welcome(guard, &name, &link),
            Ok(Arrival::TooEarly) => guard.waiting.postpone(&name, now + SOON),
            Ok(Arrival::Memberless) => {
                // Members come within moments, so this is no event.
                let obstacle = memberless(&link.name);
                guard.waiting.note(&name, Some(&obstacle), Some(now + SOON));
            }
            Err(error) => refuse(guard, &name, sentence(&*error), Some(now + LATER)),
        }
    }
}

/// Waits for these names from a start on, of which some are there and cannot be guarded; those are told.
pub(super) fn begin(guard: &mut Guard, absent: &[String], refused: Vec<Refused>) {
    let mut names = absent.to_vec();
    names.extend(refused.iter().map(|it| it.name.clone()));
    guard.waiting.replace(&names);
    for Refused { name, error, is_tried_again } in refused {
        let retry_at = is_tried_again.then(|| monotonic() + LATER);
        refuse(guard, &name, error, retry_at);
    }
}

/// Why a start does not guard a name.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) name: String,
    pub(super) error: String,
    /// No event tells when the reason is gone.
    pub(super) is_tried_again: bool,
}

/// Names that led to a guarded interface and lead to one that is not guarded now: another has the name.
fn moved(interfaces: &[Guarded], links: &[Link]) -> Vec<String> {
    let leads_elsewhere = |name: &&String| {
        let entries = interfaces.iter().map(Guarded::entry);
        resolve(links, name).is_ok_and(|it| position_of(entries, links, &it.link).is_none())
    };
    interfaces.iter().flat_map(|it| &it.names).filter(leads_elsewhere).cloned().collect()
}

fn refuse(guard: &mut Guard, name: &str, error: String, retry_at: Option<Duration>) {
    if guard.waiting.note(name, Some(&error), retry_at) {
        guard.report(What::InterfaceRefused { interface: name.to_owned(), error });
    }
}

fn welcome(guard: &mut Guard, name: &str, link: &Link) {
    guard.waiting.forget(name);
    for guarded in &mut guard.interfaces {
        guarded.names.retain(|own| own != name);
        if guarded.ifindex == link.index {
            guarded.names.push(name.to_owned());
        }
    }
    let device = (link.name != name).then(|| link.name.clone());
    if let Some(device) = &device {
        guard.configuration.warn_of_unused(name, device);
    }
    guard.report(What::InterfaceGuarded { interface: name.to_owned(), device });
}

enum Arrival {
    Guarded,
    TooEarly,
    Memberless,
}

/// Guards `link`, unless it is guarded.
fn arrive(guard: &mut Guard, around: &Surroundings, link: &Link) -> anyhow::Result<Arrival> {
    let entries = guard.interfaces.iter().map(Guarded::entry);
    if let Some(position) = position_of(entries, &around.links, link) {
        // Otherwise the entry has yet to follow its device.
        let is_same = guard.interfaces[position].ifindex == link.index;
        return Ok(if is_same { Arrival::Guarded } else { Arrival::TooEarly });
    }
    let had_program = is_attached(&guard.pins, link.index);
    if !had_program && lacks_members(&around.links, link) {
        return Ok(Arrival::Memberless);
    }
    let Some(writing) = guard.try_writing()? else { return Ok(Arrival::TooEarly) };
    let lookup_options_bytes = guard.maps.environment().daemon.lookup_options_bytes;
    let kept = guard.maps.interface_settings(link.index, &link.name);
    let own = guard.configuration.settings_of(kept, lookup_options_bytes)?;
    let had_slot = guard.maps.interfaces.of(link.index).is_some();
    guard.maps.settings_writer(writing.clone()).add_interface(around, link, &own)?;
    let how = (&guard.pins, guard.mode, guard.egress_by_filter);
    match attach_one(&mut guard.programs, &guard.maps, around, link, how) {
        Ok(guarded) => {
            guard.interfaces.push(guarded);
            forget_kept(guard, link, writing);
            // The filter lacks flows of an interface without programs.
            known_flows::learn(guard);
            Ok(Arrival::Guarded)
        }
        Err(error) => {
            if !had_program {
                // It may not have been attached.
                let _ = Attachment::detach(&guard.pins, link.index);
            }
            if !had_slot {
                guard.maps.settings_writer(writing).remove_interface(link.index);
            }
            Err(error.into())
        }
    }
}

/// Removes slots that only kept the settings of an interface called as `link`, which has them now.
fn forget_kept(guard: &mut Guard, link: &Link, writing: Lock) {
    let Guard { maps, interfaces, .. } = guard;
    let writer = maps.settings_writer(writing);
    for slot in writer.interfaces.used() {
        let ifindex = slot.interface.ifindex;
        if slot.name() == link.name && interfaces.iter().all(|it| it.ifindex != ifindex) {
            writer.remove_interface(ifindex);
        }
    }
}

/// Tells commands and the service manager what is guarded and what is waited for, if that changed.
pub(super) fn publish(guard: &mut Guard) {
    let interfaces = present(guard);
    if guard.waiting.published.as_ref() == Some(&interfaces) {
        return;
    }
    let written = guard.waiting.file.write(&interfaces).map_err(Into::into);
    guard.attempted("keep what is waited for", "`ctguard status` does not show it", &written);
    let waited = |it: &Option<Interfaces>| it.as_ref().is_some_and(|it| !it.waiting.is_empty());
    if waited(&guard.waiting.published) || !interfaces.waiting.is_empty() {
        let told = sd_notify::notify(&[NotifyState::Status(&summary(&interfaces))]);
        let told = told.context("cannot tell what is waited for");
        guard.attempted("answer the service manager", "it does not show what is missing", &told);
    }
    guard.waiting.published = written.is_ok().then_some(interfaces);
}

pub(super) fn present(guard: &Guard) -> Interfaces {
    let held = |it: &Guarded| Held {
        name: it.name.clone(),
        ifindex: it.ifindex,
        is_attached: it.attached,
        names: it.names.clone(),
    };
    let held = guard.interfaces.iter().map(held).collect();
    Interfaces { held, waiting: guard.waiting.names() }
}

/// `guarding wan0; waiting for late0`.
fn summary(interfaces: &Interfaces) -> String {
    let held: Vec<_> = interfaces.held.iter().map(|it| &it.name[..]).collect();
    let held = if held.is_empty() { "nothing yet".to_owned() } else { held.join(", ") };
    let waiting: Vec<_> = interfaces.waiting.iter().map(|it| &it.name[..]).collect();
    let waiting = waiting.join(", ");
    let waiting = if waiting.is_empty() { waiting } else { format!("; waiting for {waiting}") };
    format!("guarding {held}{waiting}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::guarded::tests::{guarded, link};

    /// Fails when an interface stays open whose name another had when the daemon started.
    #[test]
    fn a_name_that_another_interface_has_now_is_waited_for_again() {
        let vlan = Link { kind: Some("vlan".to_owned()), lower: Some(3), ..link(4, "eth0.100") };
        let links = [link(2, "eth1"), link(3, "eth0"), vlan];
        let interfaces = [guarded("eth1", 2, &["eth0", "eth1", "eth0.100", "gone0"])];
        assert_eq!(moved(&interfaces, &links), ["eth0", "eth0.100"]);
        let both = [interfaces[0].clone(), guarded("eth0", 3, &["eth0"])];
        assert!(moved(&both, &links).is_empty());
        // It was made again, and its entry has yet to follow.
        let again = [guarded("eth1", 2, &["eth1"]), guarded("eth0", 9, &["eth0"])];
        assert!(moved(&again, &links).is_empty());
    }

    fn waiting(names: &[&str]) -> Waiting {
        let mut waiting = Waiting::new().unwrap();
        waiting.replace(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        waiting
    }

    #[test]
    fn why_a_name_cannot_be_guarded_is_news_once_and_again_after_it_has_gone() {
        let mut waiting = waiting(&["ppp0"]);
        assert!(waiting.note("ppp0", Some("a PPP link"), None));
        assert!(!waiting.note("ppp0", Some("a PPP link"), None));
        assert!(waiting.note("ppp0", Some("a bridge"), None));
        waiting.note("ppp0", None, None);
        assert!(waiting.note("ppp0", Some("a PPP link"), None));
    }

    #[test]
    fn a_reload_keeps_what_is_known_of_a_name_that_it_still_has() {
        let mut waiting = waiting(&["a0", "b0"]);
        waiting.note("b0", Some("a bridge"), None);
        waiting.replace(&["b0".to_owned(), "c0".to_owned()]);
        let shown = |it: &Waited| (it.name.clone(), it.obstacle.clone());
        let expected = [("b0".to_owned(), Some("a bridge".to_owned())), ("c0".to_owned(), None)];
        assert_eq!(waiting.names().iter().map(shown).collect::<Vec<_>>(), expected);
    }

    /// Fails when each second has a full look though nothing can have changed.
    #[test]
    fn a_name_that_no_interface_has_asks_for_no_look() {
        let mut waiting = waiting(&["late0"]);
        assert!(!waiting.is_due(Duration::MAX));
        let (before, at) = (Duration::from_secs(6), Duration::from_secs(7));
        waiting.note("late0", Some("busy"), Some(at));
        assert!(waiting.is_due(at) && !waiting.is_early("late0", at));
        assert!(!waiting.is_due(before) && waiting.is_early("late0", before));
    }

    #[test]
    fn the_service_manager_hears_what_is_missing() {
        let waited = |name: &str| Waited { name: name.to_owned(), obstacle: None };
        let mut interfaces = Interfaces { held: Vec::new(), waiting: vec![waited("late0")] };
        assert_eq!(summary(&interfaces), "guarding nothing yet; waiting for late0");
        interfaces.held.push(Held { name: "wan0".to_owned(), ..Held::default() });
        assert_eq!(summary(&interfaces), "guarding wan0; waiting for late0");
        interfaces.waiting.clear();
        assert_eq!(summary(&interfaces), "guarding wan0");
    }
}
