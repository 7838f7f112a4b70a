//! Two CPUs that admit at once: the grant and the fallback rate hold all the same.

use std::{sync::Barrier, thread};

use anyhow::{Result, anyhow, ensure};
use ctguard_layout::{CLASS_SLOTS, Ceiling, Class, Counter, units::Ticks};
use ctguard_tests::{data_path::DataPath, require};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{packets, row};

/// Threads, each on a CPU of its own.
const CPUS: u64 = 2;
const ROUNDS: u64 = 200;
/// New flows that a round's grant allows; each CPU offers more than that.
const GRANTED: u64 = 500;
const OFFERED: u32 = 1500;

/// Fails when CPUs that admit together pass the grant by more than one flow each, or when
/// admissions are counted wrongly by either.
#[test]
fn two_cpus_at_once_admit_no_more_than_the_grant() -> Result<()> {
    if !require::root("two_cpus_at_once_admit_no_more_than_the_grant")
        || !require::two_cpus("two_cpus_at_once_admit_no_more_than_the_grant")
    {
        return Ok(());
    }
    let path = unlimited()?;
    let admitted = || path.grant().admitted[0].0.load();
    let mut most = 0;
    for _ in 0..ROUNDS {
        let limit = admitted() + GRANTED;
        path.grant().allowances[0].limit.store(limit);
        flood_from_all(&path)?;
        ensure!(admitted() >= limit, "a grant of {limit} is used up: {}", admitted());
        most = most.max(admitted() - limit);
    }
    println!("{ROUNDS} grants of {GRANTED} raced for: passed by {most} flows at most");
    ensure!(most <= CPUS, "the grant was passed by {most}");
    ensure!(path.counter(Counter::Admitted(Class::Other))? == admitted());
    ensure!(path.counter(Counter::Seen(Class::Other))? == ROUNDS * CPUS * u64::from(OFFERED));
    Ok(())
}

/// Fails when CPUs that race for the fallback rate's last flow both get it.
#[test]
fn two_cpus_at_once_keep_to_the_fallback_rate() -> Result<()> {
    if !require::root("two_cpus_at_once_keep_to_the_fallback_rate")
        || !require::two_cpus("two_cpus_at_once_keep_to_the_fallback_rate")
    {
        return Ok(());
    }
    let path = unlimited()?;
    path.grant().heartbeat.store(0);
    let fallback = &path.grant().fallback[0];
    let interval = 1_000_000 * Ticks::PER_JIFFY;
    fallback.interval.store(interval);
    fallback.tolerance.store((GRANTED - 1) * interval);
    for round in 1..=ROUNDS {
        fallback.arrival.store(0);
        flood_from_all(&path)?;
        let admitted = path.grant().admitted[0].0.load();
        ensure!(admitted == round * GRANTED, "{admitted} admitted in {round} rounds");
    }
    Ok(())
}

/// A data path without ceilings, and a grant only where a test gives one.
fn unlimited() -> Result<DataPath> {
    let mut path = row::fresh()?;
    let none = Ceiling { interval: Ticks(0), tolerance: Ticks(0) };
    path.set_interface(|interface| interface.ceilings = [none; CLASS_SLOTS])?;
    Ok(path)
}

/// Lets each CPU offer new flows, all at the same time. No flow cache knows frames behind more
/// tags than are read, so each of them is a new flow.
fn flood_from_all(path: &DataPath) -> Result<()> {
    let frame = packets::tagged(&packets::syn(1), &[0x8100; 3]);
    let ready = Barrier::new(usize::try_from(CPUS)?);
    let run = &|cpu: CpuSet| -> Result<()> {
        let entered = sched_setaffinity(None, &cpu);
        ready.wait();
        entered?;
        path.judge_repeatedly(&frame, OFFERED).map(|_| ())
    };
    thread::scope(|scope| {
        let threads: Vec<_> =
            cpus()?.into_iter().map(|cpu| scope.spawn(move || run(cpu))).collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ended.into_iter().try_for_each(|end| end.map_err(|_| anyhow!("a thread panicked"))?)
    })
}

fn cpus() -> Result<Vec<CpuSet>> {
    let allowed = sched_getaffinity(None)?;
    let single = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    };
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).map(single);
    Ok(cpus.take(usize::try_from(CPUS)?).collect())
}
