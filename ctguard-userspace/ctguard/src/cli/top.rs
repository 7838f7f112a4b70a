//! `ctguard top`: what the guard sees and does, live, with keys to act on it.

use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use ctguard_control::sources::{KnownSlots, SourceScope};
use ctguard_datapath::sources::tier_of;
use ctguard_layout::{CLASSES, Class, HashKey, SourceLine, Stage, Tier, maps};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
    process::{Signal, getpid, kill_current_process_group, kill_process},
    stdio::stdin,
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval_at, sleep},
};

use super::{
    CliError, Code, Context,
    lists::{AddArgs, add},
    set::{Done, set},
    status,
};
use crate::{
    daemon::watched,
    event_file::{EventFile, Position},
    events::{Event, What},
    report::{CounterReport, cause_text},
    signals::Stop,
    top::{
        Asked, Change, Counts, DENIED_FOR, Effect, FASTEST, Facts, Keyboard, SLOWEST, Screen,
        Standing, State, View, draw, look,
    },
};
use ctguard_kernel::{
    conntrack::Table,
    maps::{GuardMaps, ListKind, SourceMemory},
};

/// Facts are read so often at most, and take so small a part of the time.
const FACTS_INTERVAL: Duration = Duration::from_secs(1);
const FACTS_SHARE: u32 = 100;
/// The rest of a key's sequence comes so soon, or not at all.
const SEQUENCE: Duration = Duration::from_millis(100);

/// Watch the guard at work, and allow or deny sources by a key
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard top\n  ctguard top --interval 5s    over a slow line\n\n\
    In it, ? shows all keys. NO_COLOR in the environment turns colours off."
)]
pub(super) struct TopArgs {
    /// How often to read and draw, from 100ms to 1m
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: String,
}

pub(super) fn run(args: &TopArgs, context: &Context) -> Result<Code, CliError> {
    let look = look().map_err(CliError::NoTerminal)?;
    let period = parse_interval(&args.interval)?;
    let mut state = State::default();
    let mut reader = Reader::open(context)?;
    reader.read(&mut state)?;
    let mut view = View::new(period);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::cannot("start the main loop"))?;
    let watched: io::Result<()> = runtime.block_on(async {
        let mut stop = Stop::catch()?;
        let mut suspended = signal(SignalKind::from_raw(Signal::TSTP.as_raw()))?;
        let mut resumed = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
        let mut resized = signal(SignalKind::window_change())?;
        let input = watched(io::stdin())?;
        let mut keyboard = Keyboard::default();
        let mut screen = Screen::enter()?;
        let mut timer = pace(view.period());
        loop {
            screen.draw(|frame| draw(frame, &state, &view, look, &clock()))?;
            let mut keys = Vec::new();
            tokio::select! {
                _ = timer.tick() => {
                    view.pass_time();
                    refresh(&mut reader, &mut state, &view);
                }
                _ = stop.requested() => return Ok(()),
                _ = resized.recv() => {}
                _ = resumed.recv() => screen.take_back()?,
                _ = suspended.recv() => {
                    Screen::lend();
                    kill_process(getpid(), Signal::STOP)?;
                    resumed.recv().await;
                    screen.take_back()?;
                }
                ready = input.readable() => {
                    let mut ready = ready?;
                    let mut bytes = [0; 256];
                    match pressed(&mut bytes)? {
                        Some([]) => return Ok(()),
                        Some(bytes) => keys = keyboard.read(bytes),
                        None => ready.clear_ready(),
                    }
                }
                () = sleep(SEQUENCE), if keyboard.is_waiting() => keys.extend(keyboard.give_up()),
            }
            let paced = view.period();
            for key in keys {
                match view.press(key, &state) {
                    None => {}
                    Some(Effect::Quit) => return Ok(()),
                    Some(Effect::Redraw) => screen.forget()?,
                    // All that runs in the foreground, as the kernel would do it.
                    Some(Effect::Suspend) => kill_current_process_group(Signal::TSTP)?,
                    Some(Effect::Change(change)) => {
                        let done = change_guard(&change, context);
                        view.say(done.unwrap_or_else(|error| error.sentence()));
                        reader.forget_facts();
                        refresh(&mut reader, &mut state, &view);
                    }
                }
            }
            if view.period() != paced {
                timer = pace(view.period());
            }
        }
    });
    match watched {
        // The terminal went away.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(Code::Done),
        Err(error) => Err(CliError::Output(error)),
        Ok(()) => Ok(Code::Done),
    }
}

fn refresh(reader: &mut Reader<'_>, state: &mut State, view: &View) {
    if view.is_frozen() {
        return;
    }
    if let Err(error) = reader.read(state) {
        reader.guard = None;
        state.fail(error.sentence());
    }
}

/// What was done, in words.
fn change_guard(change: &Change, context: &Context) -> Result<String, CliError> {
    let args = |source: &String, span: Option<&str>| AddArgs {
        prefix: source.clone(),
        span: span.map(str::to_owned),
        force: false,
    };
    match change {
        Change::Allow(source) => add(ListKind::Allow, &args(source, None), context),
        Change::Deny(source) => add(ListKind::Deny, &args(source, Some(DENIED_FOR)), context),
        Change::DryRun(is_on) => {
            let assignment = if *is_on { "dry-run=on" } else { "dry-run=off" };
            let Done { changes, notes } = set(&[assignment], context)?;
            let changes = changes.iter().map(ToString::to_string);
            Ok(changes.chain(notes).collect::<Vec<_>>().join("; "))
        }
    }
}

/// The bytes of keys that have come; none if there are none, and empty at the terminal's end.
fn pressed(bytes: &mut [u8]) -> io::Result<Option<&[u8]>> {
    // A read without bytes would wait, and the shell has the same description of standard input.
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::new(&stdin(), PollFlags::IN)], Some(&now)) {
        Ok(0) | Err(Errno::INTR) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let length = read(stdin(), &mut *bytes)?;
    Ok(Some(&bytes[..length]))
}

fn pace(period: Duration) -> tokio::time::Interval {
    let mut timer = interval_at(tokio::time::Instant::now() + period, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

fn clock() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    format!("{} UTC", time_of(&now))
}

/// `12:34:56` of a time as RFC 3339 has it.
fn time_of(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

fn parse_interval(text: &str) -> Result<Duration, CliError> {
    let error = |problem| CliError::Interval { text: text.to_owned(), problem };
    let period = humantime::parse_duration(text).map_err(|source| error(source.to_string()))?;
    if (FASTEST..=SLOWEST).contains(&period) {
        Ok(period)
    } else {
        Err(error("it must be from 100ms to 1m".to_owned()))
    }
}

/// Reads the guard again and again, and opens what has to be opened once.
struct Reader<'c> {
    context: &'c Context,
    guard: Option<Guard>,
    table: Table,
    began: Instant,
    events: Events,
    next_facts: Instant,
}

struct Guard {
    /// The inode of a pin: another guard has another.
    pin: u64,
    maps: GuardMaps,
    memory: SourceMemory,
    source_key: HashKey,
    known: KnownSlots,
    lists: Vec<(IpNet, &'static str)>,
    /// The list that each source is on.
    listed: HashMap<SourceScope, Option<&'static str>>,
}

impl<'c> Reader<'c> {
    fn open(context: &'c Context) -> Result<Self, CliError> {
        let now = Instant::now();
        Ok(Self {
            context,
            guard: Some(Guard::open(context)?),
            table: Table::open()?,
            began: now,
            events: Events::open()?,
            next_facts: now,
        })
    }

    fn forget_facts(&mut self) {
        self.next_facts = Instant::now();
    }

    fn read(&mut self, state: &mut State) -> Result<(), CliError> {
        let mut guard = match self.guard.take() {
            Some(guard) if guard.is_there(self.context) => guard,
            _ => {
                self.forget_facts();
                Guard::open(self.context)?
            }
        };
        let began = Instant::now();
        if began >= self.next_facts {
            let status = status::read(self.context, &guard.maps)?;
            guard.read_sources()?;
            state.learn(Facts::new(&status, self.events.causes()?));
            self.next_facts = began + FACTS_INTERVAL.max(began.elapsed() * FACTS_SHARE);
        }
        let table = self.table.sample()?;
        let limits = guard.maps.limits();
        let counts = Counts::new(
            self.began.elapsed(),
            (table.entries, table.max),
            Class::ALL.map(|class| limits.stage(class)),
            &CounterReport::new(&guard.maps.totals()?),
        );
        state.update(counts, &guard.asked(), |source| guard.standing(source));
        self.guard = Some(guard);
        Ok(())
    }
}

impl Guard {
    fn open(context: &Context) -> Result<Self, CliError> {
        let maps = context.maps()?;
        Ok(Self {
            pin: pin(context).unwrap_or_default(),
            memory: maps.source_memory()?,
            source_key: maps.environment().fixed.source_key,
            maps,
            known: KnownSlots::default(),
            lists: Vec::new(),
            listed: HashMap::new(),
        })
    }

    fn is_there(&self, context: &Context) -> bool {
        pin(context) == Some(self.pin)
    }

    /// Which sources are known or on a list.
    fn read_sources(&mut self) -> Result<(), CliError> {
        self.known = KnownSlots::new(self.memory.lines());
        self.lists.clear();
        self.listed.clear();
        // Who is on both is denied.
        for (kind, name) in [(ListKind::Deny, "denied"), (ListKind::Allow, Tier::Allowed.name())] {
            let entries = self.maps.lists.entries(kind)?;
            self.lists.extend(entries.into_iter().map(|entry| (entry.prefix, name)));
        }
        Ok(())
    }

    fn asked(&self) -> Vec<Asked> {
        let slots = self.memory.offered().iter().enumerate();
        let asked = slots.filter_map(|(slot, offered)| {
            let source = SourceScope::of_slot(offered.address.load())?;
            let counts = offered.offered.iter().chain([&offered.answered, &offered.retried]);
            let counted = counts.fold(0_u32, |sum, count| sum.wrapping_add(count.load()));
            Some(Asked { slot, source, counted })
        });
        asked.collect()
    }

    fn standing(&mut self, source: SourceScope) -> Standing {
        let lists = &self.lists;
        let listed = *self.listed.entry(source).or_insert_with(|| {
            let net = net(source);
            lists.iter().find(|(prefix, _)| prefix.contains(&net)).map(|(_, name)| *name)
        });
        let known = self.known.find(source, &self.source_key);
        let word = known.and_then(|slot| {
            let line = self.memory.lines().get(slot / SourceLine::SLOTS)?;
            Some(line.slots[slot % SourceLine::SLOTS].load())
        });
        let counted = known.and_then(|slot| self.memory.cells().get(slot)).map(|cells| {
            cells.offered.iter().fold(0_u32, |sum, count| sum.wrapping_add(count.load()))
        });
        let tier = word.and_then(tier_of).unwrap_or(Tier::Strangers);
        Standing { tier: listed.unwrap_or(tier.name()), counted }
    }
}

fn pin(context: &Context) -> Option<u64> {
    fs::metadata(context.pins.map(maps::POLICY)).ok().map(|pin| pin.ino())
}

fn net(source: SourceScope) -> IpNet {
    match source {
        SourceScope::V4(address) => Ipv4Net::from(Ipv4Addr::from(address)).into(),
        SourceScope::V6(prefix) => {
            let address = Ipv6Addr::from(u128::from(prefix) << 64);
            Ipv6Net::new_assert(address, 64).into()
        }
    }
}

/// Why each class is in its stage, from the daemon's events.
struct Events {
    file: EventFile,
    at: Position,
    causes: [Option<String>; CLASSES],
}

impl Events {
    fn open() -> Result<Self, CliError> {
        let file = EventFile::of_this_namespace();
        let file = file.map_err(CliError::cannot("read the network namespace"))?;
        let (events, at) = file.last(usize::MAX)?;
        let mut read = Self { file, at, causes: Default::default() };
        read.see(events);
        Ok(read)
    }

    fn causes(&mut self) -> Result<[Option<String>; CLASSES], CliError> {
        let events = self.file.since(&mut self.at)?;
        self.see(events);
        Ok(self.causes.clone())
    }

    fn see(&mut self, events: Vec<Event>) {
        for Event { time, what } in events {
            let What::Stage(stage) = what else { continue };
            let class = Class::ALL.into_iter().find(|class| class.name() == stage.class);
            let Some(class) = class else { continue };
            self.causes[class as usize] = (stage.to != Stage::Calm.name()).then(|| {
                let fill = stage.fill_ratio * 100.0;
                format!("since {} at {fill:.1} % fill: {}", time_of(&time), cause_text(&stage))
            });
        }
    }
}
