//! One line of a table: a data path as it was set up, a packet, and what becomes of it.

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{
    CLASS_SLOTS, Ceiling, Class, Counter, Environment, Grant, Outcome, units::Ticks,
};
use ctguard_tests::data_path::{Action, DataPath, Setup};

/// A burst that every source has in these tables.
pub(crate) const BURST: u32 = 10;

/// What prepares a data path.
type Arrange = Box<dyn Fn(&mut DataPath) -> Result<()>>;

/// A packet and what becomes of it.
pub(crate) struct Row {
    name: &'static str,
    arrange: Vec<Arrange>,
    frame: Vec<u8>,
    action: Action,
    /// Every counter that the packet moves, each by one.
    pub(crate) counters: Vec<Counter>,
}

/// A packet that a fresh data path lets pass.
pub(crate) fn passes(name: &'static str, frame: Vec<u8>, counters: &[Counter]) -> Row {
    Row { name, arrange: Vec::new(), frame, action: Action::Pass, counters: counters.to_vec() }
}

/// A packet that a fresh data path drops.
pub(crate) fn drops(name: &'static str, frame: Vec<u8>, counters: &[Counter]) -> Row {
    Row { action: Action::Drop, ..passes(name, frame, counters) }
}

/// A packet that a fresh data path answers.
pub(crate) fn answers(name: &'static str, frame: Vec<u8>, counters: &[Counter]) -> Row {
    Row { action: Action::Answer, ..passes(name, frame, counters) }
}

/// A packet of a class that a fresh data path would refuse as `outcome`: a SYN is answered instead.
pub(crate) fn refuses(name: &'static str, frame: Vec<u8>, outcome: Outcome, class: Class) -> Row {
    if class == Class::Tcp {
        answers(name, frame, &[challenged(outcome, class)])
    } else {
        drops(name, frame, &[challenged(outcome, class)])
    }
}

/// What counts a packet that is refused as `outcome`, or answered.
pub(crate) fn challenged(outcome: Outcome, class: Class) -> Counter {
    let is_syn = class == Class::Tcp;
    Counter::Flows(if is_syn { Outcome::ChallengedByAck } else { outcome }, class)
}

impl Row {
    /// The daemon is woken too.
    pub(crate) fn waking(mut self) -> Self {
        self.counters.push(Counter::Wakeups);
        self
    }

    /// Prepares the data path before the packet comes.
    pub(crate) fn after(mut self, arrange: impl Fn(&mut DataPath) -> Result<()> + 'static) -> Self {
        self.arrange.push(Box::new(arrange));
        self
    }

    /// The grant is other than it was.
    pub(crate) fn where_grant(self, change: impl Fn(&Grant) + 'static) -> Self {
        self.after(move |path| {
            change(path.grant());
            Ok(())
        })
    }

    /// Strangers are granted nothing more.
    pub(crate) fn without_grant(self) -> Self {
        self.where_grant(|grant| grant.allowances[0].limit.store(0))
    }

    /// Nobody is.
    pub(crate) fn without_any_grant(self) -> Self {
        self.where_grant(|grant| {
            grant.allowances.iter().for_each(|allowance| allowance.limit.store(0));
        })
    }

    /// Another packet arrives before it.
    pub(crate) fn after_arrival_of(self, frame: Vec<u8>) -> Self {
        self.after(move |path| path.judge(&frame).map(|_| ()))
    }

    /// Another packet leaves before it.
    pub(crate) fn after_departure_of(self, frame: Vec<u8>) -> Self {
        self.after(move |path| path.leave(&frame))
    }

    /// The environment differs from that of the tables.
    pub(crate) fn where_environment(self, change: fn(&mut Environment)) -> Self {
        self.after(move |path| set_environment(path, change))
    }

    /// More time passes than any timeout lasts.
    pub(crate) fn long_after(self) -> Self {
        self.where_environment(|environment| environment.daemon.coarse_shift = 20)
    }

    fn check(&self, path: &mut DataPath) -> Result<()> {
        self.arrange.iter().try_for_each(|arrange| arrange(path))?;
        let before = path.counters()?;
        let action = path.judge(&self.frame)?;
        let after = path.counters()?;

        let moved = |counter: &Counter| {
            let index = counter.index() as usize;
            after[index] - before[index]
        };
        let counted: Vec<_> = Counter::all()
            .map(|counter| (counter, moved(&counter)))
            .filter(|(_, times)| *times > 0)
            .collect();
        let mut expected: Vec<_> = self.counters.iter().map(|counter| (*counter, 1)).collect();
        expected.sort_by_key(|(counter, _)| counter.index());
        ensure!(action == self.action, "{action:?} and not {:?} ({counted:?})", self.action);
        ensure!(counted == expected, "counted {counted:?} and not {expected:?}");
        Ok(())
    }
}

/// Checks every row, each on a data path that knows nothing of the others, and tells of all that
/// fail.
pub(crate) fn check(rows: &[Row]) -> Result<()> {
    let mut path = fresh()?;
    let mut failures = Vec::new();
    for (start, row) in (1..).zip(rows) {
        path.reset(start)?;
        stop_time(&mut path)?;
        if let Err(error) = row.check(&mut path).with_context(|| row.name.to_owned()) {
            failures.push(format!("{error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{} of {}:\n{}", failures.len(), rows.len(), failures.join("\n"));
    println!("{} packets judged as expected", rows.len());
    Ok(())
}

/// A data path in which no time passes that a verdict could depend on: sources earn nothing back
/// for days, and the flow cache's clock stands still.
pub(crate) fn fresh() -> Result<DataPath> {
    let mut path = DataPath::load(Setup::default())?;
    stop_time(&mut path)?;
    Ok(path)
}

fn stop_time(path: &mut DataPath) -> Result<()> {
    set_environment(path, |_| {})?;
    path.set_interface(|interface| interface.ceilings = [slow(BURST); CLASS_SLOTS])
}

/// Changes the environment from that of the tables.
pub(crate) fn set_environment(
    path: &mut DataPath,
    change: impl FnOnce(&mut Environment),
) -> Result<()> {
    path.set_environment(|environment| {
        environment.daemon.coarse_shift = 31;
        change(environment);
    })
}

/// A ceiling of `burst` flows at once and one more in a billion jiffies.
pub(crate) const fn slow(burst: u32) -> Ceiling {
    let interval = 1_000_000_000 * Ticks::PER_JIFFY;
    Ceiling { interval: Ticks(interval), tolerance: Ticks(interval * (burst as u64 - 1)) }
}
