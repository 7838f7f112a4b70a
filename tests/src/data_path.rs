//! ctguard's own object in the kernel without a daemon: maps set up by hand, packets judged by
//! `BPF_PROG_TEST_RUN`, counters read back.

mod calls;
mod setup;

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Array, PerCpuArray},
    programs::{ProgramInfo, SchedClassifier, TestRun as _, Xdp, loaded_programs},
};
use aya_obj::programs::XdpAttachType;
use ctguard_datapath::{
    known_flows::{GENERATIONS, KnownWords},
    sources,
};
use ctguard_kernel::bpf;
use ctguard_layout as layout;
use ctguard_layout::{COUNTERS, Counter, Counters, Grant, shared::Shared};
use ctguard_units::sizes::{ANSWERED_LINES, CHALLENGED_LINES};
use rustix::time::{ClockId, clock_gettime};

use crate::mapped::Mapped;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ctguard-userspace/ebpf/ctguard.bpf.o");

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the stack.
    Pass,
    /// Ends here.
    Drop,
    /// Goes back as an answer.
    Answer,
}

/// How the data path is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Lines of source buckets; a power of two.
    pub source_lines: u32,
    /// Lines of the flow cache; a power of two.
    pub flow_lines: u32,
    /// Words of each generation of the known-flows filter.
    pub known_words: u32,
    /// New flows a second that every source may open in each class.
    pub rate: u32,
    /// Its burst.
    pub burst: u32,
    /// G of the strangers.
    pub grant: u64,
    /// Most prefixes of the IPv4 deny list.
    pub denied: u32,
    /// Conntrack is asked; else the flow cache answers alone.
    pub asks_conntrack: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            source_lines: 16_384,
            flow_lines: 65_536,
            known_words: 131_072,
            rate: 20,
            burst: 10,
            grant: 1_000_000,
            denied: layout::ListEntry::CAPACITY,
            asks_conntrack: false,
        }
    }
}

/// The loaded programs and their maps.
pub struct DataPath {
    /// All maps, and the programs that aya loads.
    object: Ebpf,
    ingress: Xdp,
    grant: Mapped<Grant>,
    known: Mapped<Shared>,
    setup: Setup,
    options_bytes: u32,
    start: u64,
}

impl DataPath {
    /// Loads the object and sets its maps up.
    pub fn load(setup: Setup) -> Result<Self> {
        Self::load_object(OBJECT, setup)
    }

    /// Loads another build of the object. What is written to its maps has today's layout.
    pub fn load_object(object: &[u8], setup: Setup) -> Result<Self> {
        let (bytes, options_bytes) = calls::rewritten(object, setup.asks_conntrack)?;
        let mut object = EbpfLoader::new()
            .map_max_entries(layout::maps::BUCKETS_SOURCE, setup.source_lines)
            .map_max_entries(layout::maps::OFFERED_SOURCE, setup.source_lines)
            .map_max_entries(layout::maps::SOURCES, sources::ALL_LINES)
            .map_max_entries(layout::maps::SOURCE_CELLS, sources::SLOTS)
            .map_max_entries(layout::maps::ANSWERED, ANSWERED_LINES)
            .map_max_entries(layout::maps::CHALLENGED, CHALLENGED_LINES)
            .map_max_entries(layout::maps::FLOW_CACHE, setup.flow_lines)
            .map_max_entries(layout::maps::DENY_V4, setup.denied)
            .map_max_entries(layout::maps::KNOWN_FLOWS, GENERATIONS * setup.known_words)
            .override_global("AYA_LOG_LEVEL", &0_u8, true)
            .load(&bytes)
            .context("cannot load ctguard's eBPF object")?;
        let ingress = load_ingress(&bytes, &object)?;
        xdp(&mut object, layout::programs::CLOCK)?.load().context("cannot load the clock")?;
        let egress: &mut SchedClassifier = object
            .program_mut(layout::programs::EGRESS)
            .context("no egress program")?
            .try_into()?;
        egress.load().context("cannot load the egress program")?;

        let grant = mapped(&object, layout::maps::GRANT, 1)?;
        let words = GENERATIONS * setup.known_words;
        let known = mapped(&object, layout::maps::KNOWN_FLOWS, words)?;

        let mut path = Self { object, ingress, grant, known, setup, options_bytes, start: 0 };
        path.reset(0)?;
        Ok(path)
    }

    /// The grant, as it lies in the kernel.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant.get()[0]
    }

    /// Lets the daemon's heart beat, far into the future: no test waits for it.
    pub fn beat(&self) -> Result<()> {
        self.grant().heartbeat.store(self.jiffies()? + 1_000_000);
        Ok(())
    }

    /// Jiffies, its upper half left out.
    pub fn jiffies(&self) -> Result<u64> {
        let clock: &Xdp =
            self.object.program(layout::programs::CLOCK).context("no clock")?.try_into()?;
        let frame = [0; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        let low = clock.test_run(options)?.return_value;
        // Jiffies start five minutes below 2^32 (`INITIAL_JIFFIES`); after those the upper half has
        // been counted up once.
        let just_booted = clock_gettime(ClockId::Monotonic).tv_sec < 600 && low >= 1 << 31;
        Ok(u64::from(!just_booted) << 32 | u64::from(low))
    }

    /// Judges one frame that arrives.
    pub fn judge(&self, frame: &[u8]) -> Result<Action> {
        self.judge_repeatedly(frame, 1)
    }

    /// Judges the same frame `times` times in a row and tells what became of the last.
    pub fn judge_repeatedly(&self, frame: &[u8], times: u32) -> Result<Action> {
        self.run(TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::default()
        })
    }

    fn run(&self, options: TestRunOptions<'_>) -> Result<Action> {
        match self.ingress.test_run(options)?.return_value {
            1 => Ok(Action::Drop),
            3 => Ok(Action::Answer),
            2 => Ok(Action::Pass),
            other => anyhow::bail!("the program returned {other}"),
        }
    }

    /// Judges one frame, and returns what it is afterwards.
    pub fn rewrite(&self, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        let mut after = vec![0; frame.len()];
        let action = self.run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ..TestRunOptions::default()
        })?;
        Ok((action, after))
    }

    /// Judges a frame of which only so many bytes lie in the first buffer (Linux 6.18).
    pub fn judge_in_fragments(&self, frame: &[u8], first_buffer: u32) -> Result<Action> {
        // A `struct xdp_md`, of which data and its end say where the first buffer ends.
        let context = [0, first_buffer, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
        self.run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })
    }

    /// Lets one frame leave.
    pub fn leave(&self, frame: &[u8]) -> Result<()> {
        let egress: &SchedClassifier =
            self.object.program(layout::programs::EGRESS).context("no egress")?.try_into()?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let verdict = egress.test_run(options)?.return_value;
        ensure!(verdict == u32::MAX, "the egress program returned {verdict}");
        Ok(())
    }

    /// Nanoseconds a packet, over `repeat` runs.
    pub fn time(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        Ok(self.ingress.test_run(options)?.duration)
    }

    /// Nanoseconds that a packet which leaves takes, over `repeat` runs.
    pub fn time_leaving(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let egress: &SchedClassifier =
            self.object.program(layout::programs::EGRESS).context("no egress")?.try_into()?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
        Ok(egress.test_run(options)?.duration)
    }

    /// A counter, summed over all CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(self.counters()?[counter.index() as usize])
    }

    /// Every counter, summed over all CPUs.
    pub fn counters(&self) -> Result<[u64; COUNTERS]> {
        let map = self.object.map(layout::maps::COUNTERS).context("no counters")?;
        let array: PerCpuArray<_, setup::Plain<Counters>> = PerCpuArray::try_from(map)?;
        let mut sums = [0; COUNTERS];
        for counters in array.get(&0, 0)?.iter() {
            sums.iter_mut().zip(counters.0.values).for_each(|(sum, value)| *sum += value);
        }
        Ok(sums)
    }

    /// What was noted of the load offered to one line of buckets: flows of all classes, address.
    pub fn offered(&self, line: u32) -> Result<[u64; 2]> {
        let map = self.object.map(layout::maps::OFFERED_SOURCE).context("no offered_source")?;
        let array: Array<_, [u32; 8]> = Array::try_from(map)?;
        let [low, high, counts @ ..] = array.get(&line, 0)?;
        let [tcp, udp, other, _, _, _] = counts;
        let offered = u64::from(tcp) + u64::from(udp) + u64::from(other);
        Ok([offered, u64::from(low) | u64::from(high) << 32])
    }

    /// What the kernel tells of the program that judges.
    pub fn ingress_info(&self) -> Result<ProgramInfo> {
        Ok(self.ingress.info()?)
    }

    /// What the kernel tells of the program that remembers.
    pub fn egress_info(&self) -> Result<ProgramInfo> {
        let egress: &SchedClassifier =
            self.object.program(layout::programs::EGRESS).context("no egress")?.try_into()?;
        Ok(egress.info()?)
    }

    /// Names of the maps in the object.
    #[must_use]
    pub fn map_names(&self) -> Vec<String> {
        self.object.maps().map(|(name, _)| name.to_owned()).collect()
    }

    /// The program that judges.
    #[must_use]
    pub const fn ingress(&self) -> &Xdp {
        &self.ingress
    }
}

impl KnownWords for DataPath {
    fn known_word(&self, index: u32) -> Option<&Shared> {
        self.known.get().get(usize::try_from(index).ok()?)
    }
}

/// Loads the program that judges, as a start of the guard does; the object has its calls rewritten.
fn load_ingress(object: &[u8], loaded: &Ebpf) -> Result<Xdp> {
    let name = layout::programs::INGRESS;
    let fd =
        bpf::load_object(object, name, loaded).with_context(|| format!("cannot load {name}"))?;
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = facts.lines().find_map(|line| line.strip_prefix("prog_id:"));
    let id: u32 = id.context("a program has a number")?.trim().parse()?;
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    let info = info.context("a program that is loaded is listed")?;
    Ok(Xdp::from_program_info(info, name.into(), XdpAttachType::Interface)?)
}

fn mapped<T>(object: &Ebpf, name: &str, length: u32) -> Result<Mapped<T>> {
    let map = object.map(name).with_context(|| format!("no map {name}"))?;
    let aya::maps::Map::Array(map) = map else { anyhow::bail!("{name} is no array") };
    Mapped::new(map.fd().as_fd(), usize::try_from(length)?)
}

fn xdp<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}
