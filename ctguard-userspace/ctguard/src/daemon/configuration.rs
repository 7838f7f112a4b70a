//! Reads the configuration again while the guard runs: all of it is used, or nothing.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{self, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use log::{info, warn};

use super::{
    Guard, Guarded, StartOptions,
    arrivals::{present, publish},
    background::Background,
    bring_up::{attach_one, forget_others},
    guarded::{elsewhere, keep},
    kept_file::KeptFile,
    known_flows, lists,
};
use crate::{
    config::{Config, ConfigError, DEFAULT_PATH, in_toml_array},
    events::What,
    foreign::{Foreign, passed_over, unused},
    interfaces::{Held, Plan, Waited},
    sentence::sentence,
};
use ctguard_kernel::{
    bpf::Attachment,
    lock::Lock,
    net::{self, Link, Surroundings},
};
use ctguard_settings::{Assignment, Feed, InterfaceSettings, Settings, StartKey, Takes};

/// Of what came to a list, or went from it.
const MOST_LINES: usize = 20;

/// Where the configuration comes from, and what is in force.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// As the operator named it.
    file: Option<PathBuf>,
    /// Those of the command line, which go before all files.
    interfaces: Vec<String>,
    assignments: Vec<Assignment>,
    decided: Vec<StartKey>,
    pub(super) in_force: Config,
    last_good: KeptFile,
    reading: Option<Background<Result<Config, ConfigError>>>,
    /// What is in force is not what was saved last.
    unsaved: bool,
    /// Was read, and waits until no command writes settings.
    waiting: Option<Config>,
}

impl Configuration {
    pub(super) fn new(options: &StartOptions) -> Self {
        Self {
            file: options.file.clone(),
            interfaces: options.interfaces.clone(),
            assignments: options.assignments.clone(),
            decided: options.decided.clone(),
            in_force: options.config.clone(),
            last_good: last_good_file(options.state.as_deref()),
            ..Self::default()
        }
    }

    /// What was in force last; tells which prefixes the files listed.
    pub(crate) fn last_good(state: &Path) -> Option<Config> {
        let file = last_good_file(Some(state));
        Config::read_one(file.path().filter(|path| path.exists())?).ok()
    }

    /// The same for a start that cannot use `file`, if it came from there.
    pub(crate) fn last_good_of(file: Option<&Path>, state: &Path) -> Option<Config> {
        let kept = fs::read_to_string(last_good_file(Some(state)).path()?).ok()?;
        let is_of_file = kept.starts_with(&heading(file));
        is_of_file.then(|| Self::last_good(state)).flatten()
    }

    /// What is configured for a device that was not there before. Without a configuration, it has the
    /// settings that were `kept` for it.
    ///
    /// # Errors
    /// If the kernel cannot do what is configured; see [`Settings::zone_warning`].
    pub(super) fn settings_of(
        &self,
        kept: InterfaceSettings,
        lookup_options_bytes: u32,
    ) -> Result<InterfaceSettings> {
        let mut settings = self.in_force.settings_of(&kept.name)?;
        if !self.in_force.is_there() {
            settings.interfaces = vec![kept];
        }
        settings.apply(&Foreign::ANY.own(&self.assignments, &settings, &[]))?;
        if let Some(warning) = settings.zone_warning(lookup_options_bytes)? {
            warn!("{warning}");
        }
        settings.interfaces.pop().context("it has settings")
    }

    /// Warns if anything is configured for `name`, which leads to `device`.
    pub(super) fn warn_of_unused(&self, name: &str, device: &str) {
        let is_own = |it: &Assignment| it.key.interface() == Some(name);
        if self.in_force.has_settings_of(name) || self.assignments.iter().any(is_own) {
            warn!("{}", unused(name, device));
        }
    }

    /// Warns of settings that are for no device, as far as is known while names are `missing`.
    pub(super) fn warn_of_others(&self, interfaces: &[Guarded], missing: &[String]) {
        for (name, device) in elsewhere(interfaces) {
            self.warn_of_unused(&name, &device);
        }
        if missing.is_empty() {
            return;
        }
        let guarded: Vec<_> = interfaces.iter().map(|it| &it.name[..]).collect();
        let own = &self.interfaces[..];
        let names = if own.is_empty() { self.in_force.interfaces() } else { own };
        let of_files = self.in_force.passed_over(&guarded, missing);
        let typed = passed_over(&self.assignments, &guarded, names, missing);
        for passed_over in of_files.into_iter().chain(typed) {
            warn!("{passed_over}");
        }
    }

    /// Keeps what is in force for such a start.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.unsaved = self.last_good.is_being_written();
        if !self.unsaved {
            let text = heading(self.file.as_deref()) + &self.in_force.document();
            self.last_good.write(text.into_bytes())?;
        }
        Ok(())
    }

    /// Tries again what could not be saved.
    pub(super) fn keep_unsaved(&mut self) -> Result<()> {
        let written = self.last_good.take_written();
        let is_due = self.unsaved || matches!(written, Some(Err(_)));
        if is_due && !self.last_good.is_being_written() {
            self.keep()?;
        }
        written.map_or(Ok(()), |written| Ok(written?))
    }
}

/// The first line of what is kept: another file may be meant to drop nothing, where this one drops.
fn heading(file: Option<&Path>) -> String {
    let file = file.unwrap_or(Path::new(DEFAULT_PATH));
    let whole = path::absolute(file).unwrap_or_else(|_| file.to_owned());
    // A name may have a line break.
    format!("# In force last, from {}\n", whole.to_string_lossy().escape_debug())
}

fn last_good_file(state: Option<&Path>) -> KeptFile {
    KeptFile::of_this_namespace(state, "config", "toml")
}

/// Begins to read the files, on a thread.
pub(super) fn read_again(guard: &mut Guard) -> Result<()> {
    let configuration = &mut guard.configuration;
    let file = configuration.file.clone();
    configuration.waiting = None;
    // What an earlier request would find may be out of date.
    let read = move || Config::read(file.as_deref());
    configuration.reading = Some(Background::start("ctguard-config", read)?);
    Ok(())
}

/// Uses what was read, once it is read and no command writes settings.
pub(super) fn follow(guard: &mut Guard) -> Result<()> {
    let configuration = &mut guard.configuration;
    match Background::take_finished(&mut configuration.reading) {
        Some(Ok(config)) => configuration.waiting = Some(config),
        Some(Err(error)) => refuse(guard, &error),
        None => {}
    }
    if guard.configuration.waiting.is_none() {
        return Ok(());
    }
    let Some(writing) = guard.try_writing()? else { return Ok(()) };
    let Some(config) = guard.configuration.waiting.take() else { return Ok(()) };
    match apply(guard, config, writing) {
        Ok(changes) => guard.report(What::Reloaded { changes }),
        Err(error) => refuse(guard, &*error),
    }
    Ok(())
}

fn refuse(guard: &mut Guard, error: &dyn Error) {
    guard.report(What::ReloadRefused { error: sentence(error) });
}

/// Attaches to new interfaces, then changes settings, then detaches from former ones. Only the last
/// step cannot be undone.
fn apply(guard: &mut Guard, config: Config, writing: Lock) -> Result<Vec<String>> {
    let own = &guard.configuration;
    let names = if own.interfaces.is_empty() { config.interfaces() } else { &own.interfaces };
    let names = &names.to_vec();
    ensure!(!names.is_empty(), "it names no interface to guard (interfaces = [\"wan0\"])");
    let present = present(guard);
    let plan = Plan::new(&net::links()?, &present, names)?;
    let in_force = |held: &Held| guard.maps.interface_settings(held.ifindex, &held.name);
    let mut settings = plan.settings(&present.held, in_force);
    let foreign = Foreign::of(&own.interfaces, plan.is_unsure());
    config.apply_to(&mut settings, foreign)?;
    lists::check(guard, &config)?;
    settings.apply(&foreign.own(&own.assignments, &settings, config.interfaces()))?;
    let lookup_options_bytes = guard.maps.environment().daemon.lookup_options_bytes;
    if let Some(warning) = settings.zone_warning(lookup_options_bytes)? {
        warn!("{warning}");
    }

    // They are settings of names; devices get theirs when they come.
    settings.interfaces.retain(|own| !plan.absent.contains(&own.name));

    let mut changes = Vec::new();
    for note in &plan.notes {
        info!("{note}");
    }
    let attached = attach(guard, &plan.added, &settings, &writing)?;
    changes.extend(attached.iter().map(|it| format!("guarding {}", it.name)));
    let writer = guard.maps.settings_writer(writing.clone());
    let differences = writer.settings().changes_to(&settings);
    changes.extend(differences.iter().map(ToString::to_string));
    writer.apply(&settings);
    writer.note_stations();

    let gone = keep(&mut guard.interfaces, &plan.staying().collect());
    changes.extend(gone.iter().map(|it| format!("no longer guarding {}", it.name)));
    guard.interfaces.extend(attached);
    for guarded in &mut guard.interfaces {
        guarded.names = plan.names_of(guarded.ifindex, &guarded.names);
    }
    changes.extend(waiting_changes(&present.waiting, &plan, names));
    wait_for(guard, &plan);
    let indices = gone.iter().map(|it| it.ifindex).collect();
    forget_others(guard, &indices, &[], writing.clone());

    let former = std::mem::replace(&mut guard.configuration.in_force, config);
    guard.configuration.warn_of_others(&guard.interfaces, plan.nowhere());
    for key in StartKey::ALL {
        let Takes::Word([default, ..]) = key.takes() else { continue };
        let old = former.word(key).unwrap_or(default);
        let new = guard.configuration.in_force.word(key).unwrap_or(default);
        if new != old && !guard.configuration.decided.contains(&key) {
            changes.push(format!("{} = {new} at the next start", key.name()));
        }
    }
    let hook = guard.configuration.in_force.hook();
    if former.hook() != hook {
        changes.push(format!("{} = {}", StartKey::Hook.name(), in_toml_array(hook)));
    }
    let (lists, listed) = lists::configure(guard, &former, &writing);
    drop(writing);
    changes.extend(lists.into_iter().flat_map(some));
    guard.attempted("change the lists", "they are not as configured", &listed);
    if former.feeds() != guard.configuration.in_force.feeds() {
        let followed = former.feeds().iter().map(|feed| (&feed.name[..], feed.to_string()));
        let wanted = guard.configuration.in_force.feeds();
        changes.extend(feed_changes(&followed.collect(), wanted));
        lists::follow_feeds(guard);
    }
    let kept = guard.configuration.keep();
    guard.attempted("keep the configuration", "a start with a damaged file finds none", &kept);
    publish(guard);
    Ok(changes)
}

/// Waits for what the plan waits for, and tells of what is new.
fn wait_for(guard: &mut Guard, plan: &Plan) {
    let former = guard.waiting.names();
    guard.waiting.replace(&plan.absent);
    let is_new = |name: &&String| former.iter().all(|it| it.name != **name);
    let interfaces: Vec<_> = plan.missing().filter(is_new).cloned().collect();
    if !interfaces.is_empty() {
        let existing = plan.existing.clone();
        guard.report(What::InterfaceAwaited { interfaces, existing });
    }
}

/// How the names that are waited for differ from those that were, if `names` are configured. One that has
/// come is told as guarded.
pub(crate) fn waiting_changes(former: &[Waited], plan: &Plan, names: &[String]) -> Vec<String> {
    let new = plan.absent.iter().filter(|name| former.iter().all(|it| it.name != **name));
    let new = new.map(|name| format!("waiting for {name}: {}", plan.why_absent(name)));
    let gone = former.iter().filter(|it| !names.contains(&it.name));
    new.chain(gone.map(|it| format!("no longer waiting for {}", it.name))).collect()
}

/// How `wanted` differs from the feeds that are followed, by name.
pub(crate) fn feed_changes(followed: &BTreeMap<&str, String>, wanted: &[Feed]) -> Vec<String> {
    let is_wanted = |name: &str| wanted.iter().any(|feed| feed.name == name);
    let gone = followed.keys().filter(|name| !is_wanted(name));
    let mut changes: Vec<_> = gone.map(|name| format!("no longer following feed {name}")).collect();
    changes.extend(wanted.iter().filter_map(|feed| match followed.get(&feed.name[..]) {
        None => Some(format!("following feed {}: {feed}", feed.name)),
        Some(old) => {
            let new = feed.to_string();
            (*old != new).then(|| format!("feed {}: {old} → {new}", feed.name))
        }
    }));
    changes
}

/// The first lines, and how many more there are: a list may have thousands.
fn some(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.truncate(MOST_LINES);
        lines.push(format!("and {more} more like the last"));
    }
    lines
}

/// Attaches to all of `added`, or to none.
fn attach(
    guard: &mut Guard,
    added: &[Link],
    settings: &Settings,
    writing: &Lock,
) -> Result<Vec<Guarded>> {
    let mut attached = Vec::new();
    let indices: Vec<_> = guard.interfaces.iter().map(|it| it.ifindex).collect();
    let indices = [indices, added.iter().map(|link| link.index).collect()].concat();
    if !added.is_empty() {
        // The filter lacks flows of an interface that was not guarded.
        known_flows::learn(guard);
    }
    let around = Surroundings::of(net::links()?, &indices);
    for link in added {
        match attach_with(guard, &around, link, settings, writing) {
            Ok(interface) => attached.push(interface),
            Err(error) => {
                let done = added.iter().take(attached.len() + 1).map(|link| link.index);
                for index in done {
                    // It may not have been attached.
                    let _ = Attachment::detach(&guard.pins, index);
                    guard.maps.settings_writer(writing.clone()).remove_interface(index);
                }
                return Err(error.context(format!("cannot guard {}", link.name)));
            }
        }
    }
    guard.around = around;
    Ok(attached)
}

fn attach_with(
    guard: &mut Guard,
    around: &Surroundings,
    link: &Link,
    settings: &Settings,
    writing: &Lock,
) -> Result<Guarded> {
    let own = settings.interfaces.iter().find(|own| own.name == link.name);
    let own = own.context("its settings are missing")?;
    guard.maps.settings_writer(writing.clone()).add_interface(around, link, own)?;
    let Guard { programs, maps, pins, mode, egress_by_filter, .. } = guard;
    Ok(attach_one(programs, maps, around, link, (pins, *mode, *egress_by_filter))?)
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use ctguard_settings::FeedKey;

    use super::*;
    use crate::interfaces::Interfaces;

    #[test]
    fn what_is_waited_for_from_now_on_or_no_longer_is_told() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let waited = |name: &str| Waited { name: name.to_owned(), obstacle: None };
        let former = [waited("late0"), waited("come0"), waited("typo0")];
        let configured = names(&["come0", "late0", "new0"]);
        let come = Link { index: 2, name: "come0".to_owned(), hardware: 1, ..Link::default() };
        let present = Interfaces { held: Vec::new(), waiting: former.to_vec() };
        let plan = Plan::new(&[come], &present, &configured).unwrap();
        let changes = waiting_changes(&former, &plan, &configured);
        let expected = ["waiting for new0: it is not there", "no longer waiting for typo0"];
        assert_eq!(changes, expected);
    }

    /// Fails when an interface that was gone during a restart loses what `ctguard set` had set for it.
    #[test]
    fn without_a_configuration_an_interface_gets_the_settings_that_were_kept() {
        let kept = || InterfaceSettings { answers: false, ..InterfaceSettings::unset("late0") };
        let mut configuration = Configuration {
            assignments: vec!["interface.late0.zone=5".parse().unwrap()],
            ..Configuration::default()
        };
        let own = configuration.settings_of(kept(), u32::MAX).unwrap();
        assert_eq!((own.answers, own.zone), (false, 5));

        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ctguard.toml");
        fs::write(&file, "interfaces = [\"late0\"]").unwrap();
        configuration.in_force = Config::read_one(&file).unwrap();
        let own = configuration.settings_of(kept(), u32::MAX).unwrap();
        assert_eq!((own.answers, own.zone), (true, 5));
    }

    #[test]
    fn what_becomes_of_each_feed_is_told() {
        let feed = |name: &str, path: &str| {
            let keys = [(FeedKey::Kind, "file"), (FeedKey::Path, path)];
            let keys = keys.map(|(key, text)| (key, text.to_owned()));
            Feed::new(name, &keys.into()).unwrap()
        };
        let former = [feed("a", "/a"), feed("b", "/b"), feed("c", "/c")];
        let former = former.iter().map(|it| (&it.name[..], it.to_string())).collect();
        let wanted = [feed("b", "/b"), feed("c", "/d"), feed("e", "/e")];
        let expected = [
            "no longer following feed a",
            "feed c: file /c to deny → file /d to deny",
            "following feed e: file /e to deny",
        ];
        assert_eq!(feed_changes(&former, &wanted), expected);
    }

    /// Fails when a start with a damaged file finds nothing because the disk was full for a moment.
    #[test]
    fn a_configuration_that_could_not_be_kept_is_kept_later() {
        let directory = tempfile::tempdir().unwrap();
        let in_the_way = directory.path().join("state");
        fs::write(&in_the_way, "").unwrap();
        let file = in_the_way.join("config.toml");
        let mut configuration =
            Configuration { last_good: KeptFile::at(file.clone()), ..Configuration::default() };
        configuration.keep().unwrap();
        let mut failures = 0;
        let began = Instant::now();
        while !file.exists() {
            assert!(began.elapsed() < Duration::from_secs(10), "{failures} failures");
            failures += usize::from(configuration.keep_unsaved().is_err());
            if failures == 2 && in_the_way.is_file() {
                fs::remove_file(&in_the_way).unwrap();
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(failures >= 2);
    }
}
