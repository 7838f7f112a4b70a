//! The disturbances.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use ctguard_tests::{
    exec,
    object::{self, Program},
    product::wait_for,
    random::Random,
    router::WAN,
    sysctl::HostSysctl,
    table,
};

use super::{
    ground::{DMZ, Ground, MAX},
    watch::Promise,
};

/// What happens in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Killed,
    KilledAtStart,
    Restarted,
    Down,
    Renamed,
    MtuChanged,
    Recreated,
    Moved,
    Flushed,
    MaximumChanged,
    RulesReloaded,
    ForeignFirst,
    TornOff,
    PinsDeleted,
    Unmounted,
    BadFile,
    GoodFile,
    Set,
    Paused,
    DryRun,
    TwoDaemons,
}

impl Kind {
    pub(super) const ALL: [Self; 21] = [
        Self::Killed,
        Self::KilledAtStart,
        Self::Restarted,
        Self::Down,
        Self::Renamed,
        Self::MtuChanged,
        Self::Recreated,
        Self::Moved,
        Self::Flushed,
        Self::MaximumChanged,
        Self::RulesReloaded,
        Self::ForeignFirst,
        Self::TornOff,
        Self::PinsDeleted,
        Self::Unmounted,
        Self::BadFile,
        Self::GoodFile,
        Self::Set,
        Self::Paused,
        Self::DryRun,
        Self::TwoDaemons,
    ];

    /// What holds until the guard is back in control.
    fn promise(self) -> Promise {
        match self {
            Self::Killed | Self::KilledAtStart | Self::Restarted => Promise::Alone,
            Self::MaximumChanged
            | Self::TornOff
            | Self::PinsDeleted
            | Self::Unmounted
            | Self::Paused
            | Self::DryRun => Promise::Nothing,
            Self::Down
            | Self::Renamed
            | Self::MtuChanged
            | Self::Recreated
            | Self::Moved
            | Self::Flushed
            | Self::RulesReloaded
            | Self::ForeignFirst
            | Self::BadFile
            | Self::GoodFile
            | Self::Set
            | Self::TwoDaemons => Promise::Guarded,
        }
    }

    /// Whether a daemon need not be there.
    fn bears_an_outage(self) -> bool {
        matches!(
            self,
            Self::Down
                | Self::Renamed
                | Self::MtuChanged
                | Self::Recreated
                | Self::Moved
                | Self::Flushed
                | Self::RulesReloaded
                | Self::TornOff
                | Self::PinsDeleted
                | Self::Unmounted
        )
    }
}

/// Disturbs; now and then while the daemon is dead.
pub(super) fn disturb(ground: &mut Ground, kind: Kind, random: &mut Random) -> Result<()> {
    let is_dead = kind.bears_an_outage() && random.once_in(3);
    let promise = kind.promise();
    ground.fill.promise(if is_dead && promise == Promise::Guarded {
        Promise::Alone
    } else {
        promise
    });
    if is_dead {
        ground.kill()?;
        // It may also come back before all is as it was.
        let is_early = random.once_in(2);
        act(ground, kind, random, is_early)?;
        if !ground.has_daemon() {
            ground.start()?;
        }
        return Ok(());
    }
    act(ground, kind, random, false)
}

fn act(ground: &mut Ground, kind: Kind, random: &mut Random, starts: bool) -> Result<()> {
    let mut between = |ground: &mut Ground, random: &mut Random| -> Result<()> {
        if starts {
            return ground.start();
        }
        nap(random, 1000);
        Ok(())
    };
    match kind {
        Kind::Killed => {
            ground.kill()?;
            nap(random, 2500);
            ground.start()
        }
        Kind::KilledAtStart => {
            ground.kill()?;
            for _ in 0..=random.below(3) {
                ground.start_in_vain(Duration::from_millis(random.below(900).into()))?;
            }
            ground.start()
        }
        Kind::Restarted => {
            ground.stop()?;
            nap(random, 1000);
            ground.start()
        }
        Kind::Down => {
            ground.ip(&[&format!("link set {WAN} down")])?;
            between(ground, random)?;
            ground.ip(&[&format!("link set {WAN} up")])?;
            ground.route()
        }
        Kind::Renamed => rename(ground, random, &mut between),
        Kind::MtuChanged => change_mtu(ground, random),
        Kind::Recreated => {
            ground.ip(&[&format!("link del {DMZ}")])?;
            between(ground, random)?;
            ground.connect_dmz(DMZ)
        }
        Kind::Moved => move_and_back(ground, random, &mut between),
        Kind::Flushed => {
            let _quiet = ground.exchange.pause();
            table::flush(&ground.network.router)
        }
        Kind::MaximumChanged => change_maximum(ground, random),
        Kind::RulesReloaded => reload_rules(ground),
        Kind::ForeignFirst => foreign(ground, random),
        Kind::TornOff => {
            let index = ground.index(random.one_of(&[WAN, DMZ]))?;
            Ok(fs::remove_file(ground.pins.join(format!("xdp_{index}")))?)
        }
        Kind::PinsDeleted => delete_pins(ground, random),
        Kind::Unmounted => unmount(ground),
        Kind::BadFile => reload_a_bad_file(ground, random),
        Kind::GoodFile => {
            let burst = 1 + random.below(100);
            ground.configure(burst)?;
            ground.succeed(&["reload"])?;
            ensure_burst(ground, burst)
        }
        Kind::Set => {
            let burst = 1 + random.below(100);
            ground.succeed(&["set", &format!("source.udp.burst={burst}")])?;
            ground.succeed(&["deny", "add", "203.0.113.200", "--for", "10m"])?;
            ensure_burst(ground, burst)?;
            ground.succeed(&["deny", "del", "203.0.113.200"]).map(drop)
        }
        Kind::Paused => pause(ground, random),
        Kind::DryRun => {
            ground.succeed(&["set", "dry-run=on"])?;
            nap(random, 1500);
            ground.succeed(&["set", "dry-run=off"]).map(drop)
        }
        Kind::TwoDaemons => {
            let own = ground.pins.to_string_lossy().into_owned();
            let other = format!("{own}2");
            let said = ground.try_a_second(if random.once_in(2) { &own } else { &other })?;
            ensure!(said.refusal(1)?.contains("already"), "{said:?}");
            Ok(())
        }
    }
}

/// What happens while the interface is not as it was.
type Between<'b> = &'b mut dyn FnMut(&mut Ground, &mut Random) -> Result<()>;

fn change_mtu(ground: &Ground, random: &mut Random) -> Result<()> {
    for mtu in ["1280", "9000", "1500"] {
        // A driver may refuse what its XDP program cannot take.
        let _ = ground.ip(&[&format!("link set {WAN} mtu {mtu}")]);
        nap(random, 300);
    }
    ground.ip(&[&format!("link set {WAN} mtu 1500")])
}

fn move_and_back(ground: &mut Ground, random: &mut Random, between: Between<'_>) -> Result<()> {
    let [router, elsewhere] =
        [&ground.network.router, &ground.network.inside].map(|it| it.name().to_owned());
    ground.ip(&[&format!("link set {DMZ} netns {elsewhere}")])?;
    between(ground, random)?;
    ground.network.inside.ip(&[format!("link set {DMZ} netns {router}")])?;
    ground.ip(&[&format!("link set {DMZ} up")])
}

fn change_maximum(ground: &mut Ground, random: &mut Random) -> Result<()> {
    for max in ["8192", "32768"] {
        ground.fill.promise(Promise::Nothing);
        let _changed = HostSysctl::set(MAX, max)?;
        ground.settle()?;
        nap(random, 500);
        ground.fill.promise(Promise::Nothing);
    }
    Ok(())
}

fn reload_rules(ground: &Ground) -> Result<()> {
    let nft = |arguments: &[&str]| {
        let mut nft = ground.network.router.command("nft");
        nft.args(arguments);
        nft
    };
    let rules = exec::run(&mut nft(&["list", "ruleset"]))?;
    let again = format!("flush ruleset\n{rules}");
    exec::run_with_input(&mut nft(&["-f", "-"]), &again).map(drop)
}

fn delete_pins(ground: &Ground, random: &mut Random) -> Result<()> {
    for entry in fs::read_dir(&ground.pins)?.flatten() {
        if !random.once_in(4) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn unmount(ground: &Ground) -> Result<()> {
    let mount = ground.pins.parent().unwrap_or(&ground.pins);
    // A command may have a file open there.
    wait_for("the end of the mount", || {
        Ok(exec::run(Command::new("umount").arg(mount)).ok().map(drop))
    })
}

fn reload_a_bad_file(ground: &Ground, random: &mut Random) -> Result<()> {
    let good = fs::read(ground.file())?;
    fs::write(ground.file(), random.one_of(&["interfaces = [", "nonsense = 1\n", "\0\0\n"]))?;
    let answer = ground.ctguard(&["reload"]);
    fs::write(ground.file(), good)?;
    let answer = answer?;
    ensure!(answer.code.is_some_and(|code| code != 0), "{answer:?}");
    ensure!(answer.errors.contains("ctguard.toml"), "{answer:?}");
    Ok(())
}

fn ensure_burst(ground: &Ground, burst: u32) -> Result<()> {
    let is = ground.succeed(&["get", "source.udp.burst"])?;
    ensure!(is.trim() == burst.to_string(), "the burst is {is}");
    Ok(())
}

fn pause(ground: &Ground, random: &mut Random) -> Result<()> {
    if random.once_in(2) {
        return ground.succeed(&["pause", "1s"]).map(drop);
    }
    ground.succeed(&["pause", "5m"])?;
    nap(random, 1000);
    ground.succeed(&["pause", "--end"]).map(drop)
}

fn rename(ground: &mut Ground, random: &mut Random, between: Between<'_>) -> Result<()> {
    let call = |from: &str, to: &str| {
        ground.ip(&[
            &format!("link set {from} down"),
            &format!("link set {from} name {to}"),
            &format!("link set {to} up"),
        ])?;
        ground.route()
    };
    call(WAN, "other0")?;
    between(ground, random)?;
    ground.ip(&["link set other0 down", &format!("link set other0 name {WAN}")])?;
    ground.ip(&[&format!("link set {WAN} up")])?;
    ground.route()
}

/// Another's program is on the second interface before the guard is.
fn foreign(ground: &mut Ground, random: &mut Random) -> Result<()> {
    ground.ip(&[&format!("link del {DMZ}")])?;
    ground.connect_dmz("other0")?;
    let foreign = ground.network.router.run(|| object::attach(Program::Pass, "other0"))?;
    let program = ground.xdp("other0")?;
    ground.ip(&["link set other0 down", &format!("link set other0 name {DMZ}")])?;
    ground.ip(&[&format!("link set {DMZ} up")])?;
    if random.once_in(2) {
        ground.fill.promise(Promise::Alone);
        ground.kill()?;
        ground.start()?;
    } else {
        nap(random, 1500);
    }
    ground.wait_until_guarded(&[WAN])?;
    ensure!(ground.xdp(DMZ)? == program, "another's program was replaced");
    drop(foreign);
    Ok(())
}

/// Up to so many milliseconds.
fn nap(random: &mut Random, most: u32) {
    thread::sleep(Duration::from_millis(random.below(most).into()));
}
