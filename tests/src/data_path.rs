//! ctguard's own object in the kernel without a daemon: maps set up by hand, packets judged by
//! `BPF_PROG_TEST_RUN`, counters read back.

use std::{
    ffi::c_void,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRunOptions,
    maps::{Array, LpmTrie, MapData, PerCpuArray, lpm_trie::Key},
    programs::{ProgramInfo, SchedClassifier, TestRun as _, Xdp},
};
use ctguard_ebpf::layout::{
    self, CLASSES, COUNTERS, Ceiling, Counter, Environment, FLOW_KINDS, Grant, HashKey, Interface,
    LAYOUT_VERSION, List, Policy, Rate,
};
use ctguard_ebpf::units::Ticks;

static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../ctguard-userspace/ebpf/ctguard.bpf.o");

/// The device that a test run says its packets arrived on: the loopback of any namespace.
const LOOPBACK: u32 = 1;

/// What happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes on to the stack.
    Pass,
    /// Ends here.
    Drop,
}

/// How the data path is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Lines of source buckets; a power of two.
    pub source_lines: u32,
    /// Lines of the flow cache; a power of two.
    pub flow_lines: u32,
    /// New flows a second that every source may open in each class.
    pub rate: u32,
    /// Its burst.
    pub burst: u32,
    /// G of the strangers.
    pub grant: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { source_lines: 16_384, flow_lines: 65_536, rate: 20, burst: 10, grant: 1_000_000 }
    }
}

/// The loaded programs and their maps.
pub struct DataPath {
    object: Ebpf,
    grant: Mapped<Grant>,
    setup: Setup,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);

// SAFETY: used below for the `repr(C)` types of the layout, which hold integers alone and name
// their padding.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

impl DataPath {
    /// Loads the object and sets its maps up.
    pub fn load(setup: Setup) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .map_max_entries(layout::maps::BUCKETS_SOURCE, setup.source_lines)
            .map_max_entries(layout::maps::OFFERED_SOURCE, setup.source_lines)
            .map_max_entries(layout::maps::FLOW_CACHE, setup.flow_lines)
            .override_global("AYA_LOG_LEVEL", &0_u8, true)
            .load(OBJECT)
            .context("cannot load ctguard's eBPF object")?;
        for name in [layout::programs::INGRESS, layout::programs::CLOCK] {
            xdp(&mut object, name)?.load().with_context(|| format!("cannot load {name}"))?;
        }
        let egress: &mut SchedClassifier =
            object.program_mut(layout::programs::EGRESS).context("no egress program")?.try_into()?;
        egress.load().context("cannot load the egress program")?;

        let map = object.map(layout::maps::GRANT).context("no map grant")?;
        let aya::maps::Map::Array(map) = map else { anyhow::bail!("grant is no array") };
        let grant = Mapped::new(map.fd().as_fd())?;

        let mut path = Self { object, grant, setup };
        path.set_policy(|_| {})?;
        path.set_environment(|_| {})?;
        path.set_interface(|_| {})?;
        path.grant().allowances[0].limit.store(setup.grant);
        path.grant().allowances[0].wake_at.store(u64::MAX);
        path.grant().allowances[1].limit.store(setup.grant);
        path.grant().allowances[1].wake_at.store(u64::MAX);
        path.beat()?;
        Ok(path)
    }

    /// The grant, as it lies in the kernel.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        self.grant.get()
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
        // Jiffies start just below 2^32 (`INITIAL_JIFFIES`), so soon after boot the upper half
        // has been counted up once.
        Ok(1 << 32 | u64::from(low))
    }

    /// Changes the policy from the default of tests.
    pub fn set_policy(&mut self, change: impl FnOnce(&mut Policy)) -> Result<()> {
        let mut policy = Policy {
            layout_version: LAYOUT_VERSION,
            switches: 0,
            lists_in_use: 0,
            target_ppm: 850_000,
            source: [Rate { flows_per_second: self.setup.rate, burst: self.setup.burst }; CLASSES],
            fallback_flows_per_second: 0,
            reserved: 0,
        };
        change(&mut policy);
        self.write(layout::maps::POLICY, 0, policy)
    }

    /// Changes the environment from the default of tests.
    pub fn set_environment(&mut self, change: impl FnOnce(&mut Environment)) -> Result<()> {
        let mut flow_timeouts = [0; FLOW_KINDS];
        flow_timeouts[..9].copy_from_slice(&[60, 432_000, 30, 10, 30, 30, 30, 3, 600]);
        let words = std::array::from_fn(|word| {
            (word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        });
        let mut environment = Environment {
            source_key: HashKey { words },
            tuple_key: HashKey { words },
            jiffies_per_second: 1000,
            coarse_shift: 10,
            heartbeat_patience_jiffies: 2000,
            source_line_mask: self.setup.source_lines - 1,
            flow_line_mask: self.setup.flow_lines - 1,
            tcp_loose: 1,
            repeat_window_coarse: 3,
            zero: 0,
            stations_in_use: 0,
            reserved: 0,
            flow_timeouts,
        };
        change(&mut environment);
        self.write(layout::maps::ENVIRONMENT, 0, environment)
    }

    /// Changes the interface from the default of tests.
    pub fn set_interface(&mut self, change: impl FnOnce(&mut Interface)) -> Result<()> {
        let interval = Ticks(1000 * Ticks::PER_JIFFY / u64::from(self.setup.rate));
        let tolerance = Ticks(interval.0 * u64::from(self.setup.burst - 1));
        let mut interface = Interface {
            ifindex: LOOPBACK,
            mode: Interface::NATIVE,
            ceilings: [Ceiling { interval, tolerance }; CLASSES],
            ..Interface::FREE
        };
        change(&mut interface);
        self.write(layout::maps::INTERFACES, LOOPBACK, interface)
    }

    /// Puts an IPv4 prefix on a list.
    pub fn list_ipv4(&mut self, list: List, address: [u8; 4], bits: u32, expires: u64) -> Result<()> {
        let name = if list == List::AllowV4 { layout::maps::ALLOW_V4 } else { layout::maps::DENY_V4 };
        let map = self.object.map_mut(name).context("no such list")?;
        let mut trie: LpmTrie<_, [u8; 4], [u32; 2]> = LpmTrie::try_from(map)?;
        let halves = [u32::try_from(expires & 0xffff_ffff)?, u32::try_from(expires >> 32)?];
        trie.insert(&Key::new(bits, address), halves, 0)?;
        Ok(())
    }

    /// Judges one frame that arrives.
    pub fn judge(&self, frame: &[u8]) -> Result<Action> {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        match self.ingress()?.test_run(options)?.return_value {
            1 => Ok(Action::Drop),
            2 => Ok(Action::Pass),
            other => anyhow::bail!("the program returned {other}"),
        }
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
        Ok(self.ingress()?.test_run(options)?.duration)
    }

    /// A counter, summed over all CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let map = self.object.map(layout::maps::COUNTERS).context("no counters")?;
        let array: PerCpuArray<_, [u64; COUNTERS]> = PerCpuArray::try_from(map)?;
        Ok(array.get(&0, 0)?.iter().map(|values| values[counter.index() as usize]).sum())
    }

    /// What the kernel tells of the program that judges.
    pub fn ingress_info(&self) -> Result<ProgramInfo> {
        Ok(self.ingress()?.info()?)
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

    fn ingress(&self) -> Result<&Xdp> {
        let program = self.object.program(layout::programs::INGRESS).context("no ingress")?;
        Ok(program.try_into()?)
    }

    fn write<T: Copy + 'static>(&mut self, name: &str, index: u32, value: T) -> Result<()> {
        let map = self.object.map_mut(name).with_context(|| format!("no map {name}"))?;
        let mut array: Array<&mut MapData, Plain<T>> = Array::try_from(map)?;
        array.set(index, Plain(value), 0).with_context(|| format!("cannot write {name}"))
    }
}

fn xdp<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    Ok(object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// The one value of a memory-mappable array.
struct Mapped<T> {
    value: NonNull<T>,
}

impl<T> Mapped<T> {
    fn new(map: BorrowedFd<'_>) -> Result<Self> {
        // SAFETY: a fresh shared mapping of a map's values, at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        ensure!(address != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let value = NonNull::new(address.cast::<T>()).context("mmap gave no address")?;
        Ok(Self { value })
    }

    fn get(&self) -> &T {
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and `T` is shared with the
        // kernel through atomics alone.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of the same length.
        unsafe { libc::munmap(self.value.as_ptr().cast::<c_void>(), size_of::<T>()) };
    }
}
