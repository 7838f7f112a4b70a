//! What stands on the router's outer interface: ctguard, programs of the lab, and what the
//! distribution and the kernel have against the same flood.

use std::{
    any::Any,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{maps::Array, programs::XdpMode};
use serde::Serialize;

use crate::{
    addresses::{FLOOD_PORT, TCP_PORT},
    data_path::{DataPath, Setup},
    exec,
    guard::{Guard, Orders},
    netns::Handle,
    object::{self, Program},
    router::WAN,
};

/// New connections a second that peers allow each source, and how many at once.
const PER_SECOND: u64 = 1;
const BURST: u64 = 3;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// A program that drops everything.
    DropOnly,
    ArrayBucket,
    LruBucket,
    PerCpuLruBucket,
    Ctguard,
    /// A static rule that knows the flood's port.
    XdpFilter,
    /// The same rule where packets arrive.
    NftIngressDrop,
    /// The same before conntrack.
    NftRawDrop,
    /// A limit for each source where packets arrive.
    NftIngressMeter,
    /// The same before conntrack.
    NftRawMeter,
    Hashlimit,
    /// A limit on connections of each source.
    CtCount,
    Synproxy,
    /// A program that lets everything pass.
    PassOnly,
    Nothing,
}

impl Peer {
    pub(crate) const ALL: [Self; 15] = [
        Self::DropOnly,
        Self::ArrayBucket,
        Self::LruBucket,
        Self::PerCpuLruBucket,
        Self::Ctguard,
        Self::XdpFilter,
        Self::NftIngressDrop,
        Self::NftRawDrop,
        Self::NftIngressMeter,
        Self::NftRawMeter,
        Self::Hashlimit,
        Self::CtCount,
        Self::Synproxy,
        Self::PassOnly,
        Self::Nothing,
    ];

    /// Those that bars and a quick look are about.
    pub(crate) const MOST_COMPARED: [Self; 6] = [
        Self::DropOnly,
        Self::ArrayBucket,
        Self::LruBucket,
        Self::Ctguard,
        Self::XdpFilter,
        Self::NftIngressMeter,
    ];

    /// What stands in tables and pictures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::DropOnly => "XDP program that only drops",
            Self::ArrayBucket => "XDP, array bucket",
            Self::LruBucket => "XDP, LRU bucket",
            Self::PerCpuLruBucket => "XDP, per-CPU LRU bucket",
            Self::Ctguard => "ctguard",
            Self::XdpFilter => "xdp-filter, the flood's port",
            Self::NftIngressDrop => "nftables ingress, the flood's port",
            Self::NftRawDrop => "nftables raw, the flood's port",
            Self::NftIngressMeter => "nftables ingress, meter",
            Self::NftRawMeter => "nftables raw, meter",
            Self::Hashlimit => "iptables hashlimit, raw",
            Self::CtCount => "nftables ct count",
            Self::Synproxy => "nftables SYNPROXY",
            Self::PassOnly => "XDP program that only passes",
            Self::Nothing => "nothing",
        }
    }

    /// Puts it on the router's outer interface.
    pub(crate) fn start(self, router: &Handle, ctguard: &Path, log: &Path) -> Result<Post> {
        let script = match self {
            Self::Nothing => return Ok(Post::default()),
            Self::DropOnly => {
                return Ok(Post::of(router.run(|| object::attach(Program::Floor, WAN))?));
            }
            Self::PassOnly => {
                return Ok(Post::of(router.run(|| object::attach(Program::Pass, WAN))?));
            }
            Self::ArrayBucket => return bucket(router, "lab_array_bucket"),
            Self::LruBucket => return bucket(router, "lab_lru_bucket"),
            Self::PerCpuLruBucket => return bucket(router, "lab_cpu_bucket"),
            Self::Ctguard => return self::ctguard(router, ctguard, log),
            Self::XdpFilter => return Ok(Post::of(XdpFilter::start(router)?)),
            Self::Hashlimit => return hashlimit(router),
            Self::NftIngressDrop => in_chain(INGRESS, "", &drop_port()),
            Self::NftRawDrop => in_chain(RAW, "", &drop_port()),
            Self::NftIngressMeter => in_chain(INGRESS, METER, &metered()),
            Self::NftRawMeter => in_chain(RAW, METER, &metered()),
            Self::CtCount => in_chain(
                "type filter hook prerouting priority filter",
                "set sources { type ipv4_addr; size 65536; flags dynamic; }",
                &format!(
                    "iifname {WAN} ct state new add @sources {{ ip saddr ct count over {BURST} }} drop"
                ),
            ),
            Self::Synproxy => {
                // Else an ACK that ends its handshake would open a connection by itself.
                router.sysctl(&[("net.netfilter.nf_conntrack_tcp_loose", "0")])?;
                synproxy()
            }
        };
        exec::run_with_input(router.command("nft").args(["-f", "-"]), &script)?;
        Ok(Post::default())
    }
}

/// A peer at its post; it leaves when dropped, and what it put into the router's namespace goes
/// with that.
#[derive(Default)]
pub(crate) struct Post {
    _keeps: Option<Box<dyn Any>>,
    daemon: Option<u32>,
}

impl Post {
    fn of(keeps: impl Any) -> Self {
        Self { _keeps: Some(Box::new(keeps)), daemon: None }
    }

    /// The process that works for it, if one does.
    pub(crate) fn daemon(&self) -> Option<u32> {
        self.daemon
    }
}

fn ctguard(router: &Handle, binary: &Path, log: &Path) -> Result<Post> {
    let orders = Orders {
        binary: PathBuf::from(binary),
        settings: Vec::new(),
        interfaces: vec![WAN],
        allowed: Vec::new(),
        regulars: Vec::new(),
    };
    let standing = Guard::Ctguard(orders).start(router, FLOOD_PORT, log)?;
    let daemon = standing.daemon().map(crate::daemon::Daemon::pid);
    Ok(Post { _keeps: Some(Box::new(standing)), daemon })
}

/// A bucket of the lab's object.
fn bucket(router: &Handle, name: &'static str) -> Result<Post> {
    let hz = jiffies_per_second()?;
    let interval = hz / PER_SECOND;
    router
        .run(|| {
            let mut object = object::load()?;
            let map = object.map_mut("lab_bucket_rate").context("no map lab_bucket_rate")?;
            let rate = [interval, interval * (BURST - 1), crate::random::seed()?];
            Array::<_, [u64; 3]>::try_from(map)?.set(0, rate, 0)?;
            object::program(&mut object, name)?
                .attach(WAN, XdpMode::Driver)
                .with_context(|| format!("cannot attach {name} to {WAN}"))?;
            Ok(object)
        })
        .map(Post::of)
}

/// The kernel's tick length is one of a few; two readings tell which.
fn jiffies_per_second() -> Result<u64> {
    let path = DataPath::load(Setup::default())?;
    let first = path.jiffies()?;
    thread::sleep(Duration::from_millis(200));
    let passed = 5 * (path.jiffies()? - first);
    let nearest = [100, 250, 300, 1000].into_iter().min_by_key(|hz: &u64| hz.abs_diff(passed));
    nearest.context("there are tick lengths to choose from")
}

const INGRESS: &str = "type filter hook ingress device \"wan0\" priority -500";
const RAW: &str = "type filter hook prerouting priority raw";
const METER: &str =
    "set sources { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }";

fn drop_port() -> String {
    format!("tcp dport {FLOOD_PORT} drop")
}

fn metered() -> String {
    format!(
        "tcp flags & (syn | ack) == syn update @sources \
         {{ ip saddr limit rate over {PER_SECOND}/second burst {BURST} packets }} drop"
    )
}

/// A table with one chain, of one rule.
fn in_chain(hook: &str, set: &str, rule: &str) -> String {
    let family = if hook == INGRESS { "netdev" } else { "ip" };
    let iif = if hook == RAW { format!("iifname {WAN} ") } else { String::new() };
    format!("table {family} peer {{ {set}\n chain in {{ {hook}\n {iif}{rule}\n }}\n }}\n")
}

/// SYNs are answered in place of the router's address and of what it forwards to.
fn synproxy() -> String {
    let server = crate::addresses::Family::Ipv4.inside_server();
    format!(
        "table ip peer {{
            chain untracked {{
                type filter hook prerouting priority raw
                iifname {WAN} tcp dport {{ {TCP_PORT}, {FLOOD_PORT} }} tcp flags & (syn | ack) == syn notrack
            }}
            chain answer {{
                type filter hook input priority filter - 1
                iifname {WAN} tcp dport {{ {TCP_PORT}, {FLOOD_PORT} }} ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
            }}
            chain forward {{
                type nat hook output priority -100
                tcp dport {TCP_PORT} dnat to {server}
            }}
        }}"
    )
}

fn hashlimit(router: &Handle) -> Result<Post> {
    let (rate, burst) = (format!("{PER_SECOND}/sec"), BURST.to_string());
    exec::run(router.command("iptables").args([
        "-t",
        "raw",
        "-A",
        "PREROUTING",
        "-i",
        WAN,
        "-p",
        "tcp",
        "--syn",
        "-m",
        "hashlimit",
        "--hashlimit-name",
        "peer",
        "--hashlimit-mode",
        "srcip",
        "--hashlimit-above",
        &rate,
        "--hashlimit-burst",
        &burst,
        "--hashlimit-htable-size",
        "65536",
        "--hashlimit-htable-max",
        "65536",
        "-j",
        "DROP",
    ]))?;
    Ok(Post::default())
}

/// xdp-filter in a mount namespace of its own, whose bpffs holds its pins; it ends with this.
struct XdpFilter(Child);

impl XdpFilter {
    fn start(router: &Handle) -> Result<Self> {
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && xdp-filter load -m native {WAN} && \
             xdp-filter port -m dst -p tcp {FLOOD_PORT} && echo ready && exec cat"
        );
        let mut command = router.command("unshare");
        command.args(["--mount", "--", "sh", "-c", &script]);
        let mut filter = Self(spawn(&mut command)?);
        let output = filter.0.stdout.take().context("it has an output")?;
        for line in BufReader::new(output).lines() {
            if line.context("cannot read what xdp-filter says")? == "ready" {
                return Ok(filter);
            }
        }
        bail!("xdp-filter does not start ({})", filter.0.wait()?)
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().context("cannot start xdp-filter")
}

impl Drop for XdpFilter {
    fn drop(&mut self) {
        // The shell became `cat`, which ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
