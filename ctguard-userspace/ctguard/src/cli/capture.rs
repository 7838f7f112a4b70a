//! `ctguard capture`: packets that the guard refuses, for Wireshark and tshark.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use clap::{Args, builder::PossibleValuesParser, value_parser};
use ctguard_kernel::{
    bpf::monotonic,
    lock,
    maps::{Capture, GuardMaps, Slot},
};
use ctguard_layout::{Action, CaptureOrder, Captured, Group, Policy, Row, TABLE};
use tokio::{
    runtime::Builder,
    time::{MissedTickBehavior, interval},
};

use super::{CliError, Code, Context, lists::parse_span, patient::Patient};
use crate::{
    files::FileError,
    pcapng::{Packet, Writer},
    plural::counted,
    signals::Stop,
    terminal::complain,
};

/// How soon a packet is written; a buffer takes so many at the highest rate.
const READ_INTERVAL: Duration = Duration::from_millis(50);
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than a command that is not killed takes to renew its order on a busy machine.
const ORDER_SECONDS: u32 = 3;
/// Packets that each CPU copies per second at most, on average and at once.
const BUDGET: u32 = 1000;
/// What a CPU's buffer takes for sure, and what comes with each packet in it.
const BUFFERED_BYTES: u32 = 384 << 10;
const OVERHEAD: u32 = 64;
/// The longest that the kernel puts into its buffers with what comes before it.
const LONGEST_SNAP: u32 = 9216;
/// Permissions of the file.
const OWN: u32 = 0o600;
/// `XDP_DROP` and `XDP_PASS` of `enum xdp_action`.
const DROPPED: u64 = Action::Drop as u64;
const PASSED: u64 = Action::Pass as u64;

/// Write packets that the guard refuses into a file, for Wireshark
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard capture -w refused.pcapng                    until Ctrl-C, a minute at most\n  \
    ctguard capture -w - | tshark -r -                   show them as they come\n  \
    ctguard capture -w deny.pcapng --reason deny -i wan0 what the deny list refuses on wan0\n  \
    tshark -r refused.pcapng -T fields -e frame.comment -e ip.src\n\n\
    tcpdump and Wireshark see no packet that XDP drops. Each packet of the file has the reason as its\n\
    comment, in the words of `ctguard status --json`: refused: source. In a dry run they are those\n\
    that would be refused. SYNs that are answered by a challenge are left out.\n\n\
    Reasons:\n  \
    source              its source is above its ceiling or its fair share\n  \
    prefix              its /24 or /48 is above the limit that you set\n  \
    service             its destination and port are above the limit that you set\n  \
    grant               the table has no room for it\n  \
    fallback            no daemon runs, and the fallback rate is spent\n  \
    deny                its source is on a deny list\n  \
    challenge           a stranger has to send it again, or it cannot be challenged\n  \
    tiny_fragment       a first fragment without the whole transport header\n  \
    challenge_answered  a RST that answers a challenge, and has done its work\n\n\
    Each CPU copies up to 1,000 packets per second, so a flood costs little while it is captured. The\n\
    last line says how many there were. Needs no daemon; nothing stays on if the command is killed."
)]
pub(super) struct CaptureArgs {
    /// Write pcapng into FILE; - is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after N packets
    #[arg(short, long, value_name = "N", default_value_t = 10_000, value_parser = value_parser!(u64).range(1..))]
    count: u64,
    /// End after this time, such as 10s or 5m
    #[arg(long = "for", value_name = "TIME", default_value = "60s")]
    span: String,
    /// Take one in N packets of each CPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    sample: u32,
    /// Only packets that arrive on this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Only packets refused for this reason; may be given again
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(reasons()))]
    reason: Vec<String>,
    /// Bytes of each packet at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(14..=LONGEST_SNAP.into()))]
    snaplen: u32,
}

pub(super) fn run(args: &CaptureArgs, context: &Context) -> Result<Code, CliError> {
    let span = parse_span("--for", &args.span)?;
    let to_output = args.write == Path::new("-");
    if to_output && rustix::stdio::stdout().is_terminal() {
        return Err(CliError::CaptureOnTerminal);
    }
    let maps = context.maps()?;
    let order = order(args, &maps)?;
    let lock = lock::for_capturing(context.pins.path())?;
    let done = capture(args, (span, to_output, order), maps, context);
    lock.remove();
    done
}

fn capture(
    args: &CaptureArgs,
    (span, to_output, order): (Duration, bool, CaptureOrder),
    maps: GuardMaps,
    context: &Context,
) -> Result<Code, CliError> {
    let capture = Capture::open(&context.pins)?;
    let failed = |error| {
        if to_output {
            CliError::Output(error)
        } else {
            FileError::new("write", &args.write)(error).into()
        }
    };
    let out = if to_output { output() } else { create(&args.write) }.map_err(failed)?;
    let application = concat!("ctguard ", env!("CARGO_PKG_VERSION"));
    let out = BufWriter::new(Patient::new(out, span));
    let file = Writer::new(out, application, args.snaplen).map_err(failed)?;
    let (booted, late) = (booted(), Vec::new());
    let mut session = Session { capture, order, file, maps, booted, late, read: 0, written: 0 };

    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::cannot("capture"))?;
    let began = Instant::now();
    let end = runtime.block_on(session.follow(args.count, span, context));
    let took = began.elapsed();
    let end = end.and_then(|end| session.finish(args.count).map_err(failed).map(|()| end));
    complain(format_args!("{}", session.summary(took)?));
    match end? {
        End::Asked => Ok(Code::Done),
        End::Failed(error) => Err(failed(error)),
        End::GuardGone => Err(CliError::GuardGone),
    }
}

/// Why a capture ends.
enum End {
    /// By a signal, or because it has what it was to get.
    Asked,
    GuardGone,
    Failed(io::Error),
}

struct Session<W: Write> {
    capture: Capture,
    order: CaptureOrder,
    file: Writer<W>,
    maps: GuardMaps,
    /// When the monotonic clock began, in nanoseconds since 1970.
    booted: u64,
    /// Packets that came while the buffers were read: others may be before them.
    late: Vec<(Captured, Vec<u8>)>,
    read: u64,
    written: u64,
}

impl<W: Write> Session<W> {
    async fn follow(
        &mut self,
        count: u64,
        span: Duration,
        context: &Context,
    ) -> Result<End, CliError> {
        let mut stop = Stop::catch().map_err(CliError::cannot("catch signals"))?;
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let mut renewed = None;
        loop {
            tokio::select! {
                _ = stop.requested() => return Ok(End::Asked),
                _ = ticks.tick() => {}
            }
            if renewed.is_none_or(|at: Instant| at.elapsed() >= RENEW_INTERVAL) {
                if !self.capture.is_of_this_guard() {
                    return Ok(End::GuardGone);
                }
                let (now, per_second) = context.now(&self.maps)?;
                let until = now.0 + u64::from(ORDER_SECONDS * per_second);
                self.capture.order(&CaptureOrder { until, ..self.order });
                if renewed.replace(Instant::now()).is_none() {
                    let nothing = match self.maps.pause() {
                        Some(_) => " (paused: nothing is dropped)",
                        None if self.maps.policy().has(Policy::DRY_RUN) => {
                            " (dry run: nothing is dropped)"
                        }
                        None => "",
                    };
                    complain(format_args!("capturing what is refused{nothing}; Ctrl-C ends it"));
                }
            }
            if let Err(error) = self.take(count, nanoseconds(monotonic())) {
                return Ok(End::Failed(error));
            }
            if self.written >= count || began.elapsed() >= span {
                return Ok(End::Asked);
            }
        }
    }

    /// Writes what has come and was copied before `until`, up to `count` packets in all.
    fn take(&mut self, count: u64, until: u64) -> io::Result<()> {
        let why = if self.maps.pause().is_some() { "paused" } else { "dry run" };
        let (late, read) = (&mut self.late, &mut self.read);
        self.capture.read(|captured, bytes| {
            *read += 1;
            late.push((captured, bytes.to_vec()));
        });
        self.late.sort_by_key(|(captured, _)| captured.at);
        let ready = self.late.partition_point(|(captured, _)| captured.at < until);
        for (captured, bytes) in self.late.drain(..ready) {
            if self.written >= count {
                continue;
            }
            let Some(row) = TABLE.get(captured.outcome as usize) else { continue };
            let passed = captured.passed != 0;
            let packet = Packet {
                ifindex: captured.ifindex,
                at: self.booted.saturating_add(captured.at),
                length: captured.frame_bytes,
                bytes: &bytes,
                comment: &comment(row, passed.then_some(why)),
                verdict: if passed { PASSED } else { DROPPED },
            };
            self.file.write(packet, || name_of(&self.maps, captured.ifindex))?;
            self.written += 1;
        }
        self.file.flush()
    }

    /// Ends the order, and writes what came until then.
    fn finish(&mut self, count: u64) -> io::Result<()> {
        self.capture.order(&CaptureOrder::default());
        self.take(count, u64::MAX)
    }

    fn summary(&self, took: Duration) -> Result<String, CliError> {
        let tally = self.capture.tally()?;
        let lost = tally.sent.saturating_sub(self.read);
        Ok(summary(self.written, tally.seen, lost, took))
    }
}

fn summary(written: u64, seen: u64, lost: u64, took: Duration) -> String {
    let left_out = seen.saturating_sub(written).saturating_sub(lost);
    format!(
        "captured {written} of {} in {:.1} s; {left_out} left out, {lost} lost",
        counted(seen, "refused packet", "refused packets"),
        took.as_secs_f64()
    )
}

/// All of the order but its time.
fn order(args: &CaptureArgs, maps: &GuardMaps) -> Result<CaptureOrder, CliError> {
    let ifindex = match &args.interface {
        None => 0,
        Some(name) => {
            let used = maps.interfaces.used();
            let slot = used.iter().find(|slot| slot.name() == *name);
            let guarded = || used.iter().map(Slot::name).collect::<Vec<_>>().join(", ");
            let unknown = || CliError::NotGuarded { name: name.clone(), guarded: guarded() };
            slot.ok_or_else(unknown)?.interface.ifindex
        }
    };
    let jiffies_per_second = maps.environment().daemon.jiffies_per_second.max(1);
    Ok(CaptureOrder {
        until: 0,
        outcomes: outcomes(&args.reason),
        ifindex,
        snap_bytes: args.snaplen,
        one_in: args.sample,
        per_jiffy: BUDGET.div_ceil(jiffies_per_second),
        burst: BUDGET.min(BUFFERED_BYTES / (args.snaplen + OVERHEAD)),
        reserved: 0,
    })
}

/// Bits of the outcomes that have one of these labels; of all if there is none.
fn outcomes(labels: &[String]) -> u64 {
    let wanted =
        dropped().filter(|row| labels.is_empty() || labels.iter().any(|label| label == row.label));
    wanted.fold(0, |bits, row| bits | 1 << row.outcome as u32)
}

fn dropped() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| row.action == Action::Drop)
}

fn reasons() -> Vec<&'static str> {
    let mut labels = Vec::new();
    for row in dropped() {
        if !labels.contains(&row.label) {
            labels.push(row.label);
        }
    }
    labels
}

/// `passed` says why it passed all the same.
fn comment(row: &Row, passed: Option<&str>) -> String {
    let what = match row.group {
        Group::Refused => "refused",
        // It is admitted if it comes again.
        Group::Challenged => "refused once",
        Group::Packet | Group::Admitted => "dropped",
    };
    let but = passed.map_or_else(String::new, |why| format!(" (passed: {why})"));
    format!("{what}: {}{but}", row.label)
}

fn name_of(maps: &GuardMaps, ifindex: u32) -> String {
    maps.interfaces.of(ifindex).map_or_else(|| format!("number {ifindex}"), |slot| slot.name())
}

fn booted() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    nanoseconds(now.saturating_sub(monotonic()))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Others need not read what strangers sent, also if the file was there before.
fn create(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    let file = open.write(true).create(true).truncate(false).mode(OWN).open(path)?;
    if file.metadata()?.is_file() {
        file.set_permissions(Permissions::from_mode(OWN))?;
        file.set_len(0)?;
    }
    Ok(file)
}

/// No terminal, so its bytes need not be escaped.
fn output() -> io::Result<File> {
    Ok(rustix::stdio::stdout().try_clone_to_owned()?.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ctguard_layout::Outcome;

    use super::*;

    fn comment_of(outcome: Outcome) -> String {
        comment(outcome.row(), None)
    }

    #[test]
    fn a_comment_has_the_reason_in_the_words_of_status() {
        assert_eq!(comment_of(Outcome::RefusedSource), "refused: source");
        assert_eq!(comment_of(Outcome::Denied), "refused: deny");
        assert_eq!(comment_of(Outcome::ChallengedBySilence), "refused once: challenge");
        assert_eq!(comment_of(Outcome::TinyFragment), "dropped: tiny_fragment");
        let passed = |why| comment(Outcome::Denied.row(), Some(why));
        assert_eq!(passed("dry run"), "refused: deny (passed: dry run)");
        assert_eq!(passed("paused"), "refused: deny (passed: paused)");
    }

    #[test]
    fn what_strangers_sent_is_the_owners_also_in_a_file_that_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("refused.pcapng");
        std::fs::write(&path, "what was there").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        create(&path).unwrap();
        let facts = std::fs::metadata(&path).unwrap();
        assert_eq!((facts.permissions().mode() & 0o777, facts.len()), (OWN, 0));
    }

    #[test]
    fn reasons_are_the_labels_of_all_that_is_dropped() {
        let expected = [
            "challenge",
            "source",
            "grant",
            "fallback",
            "deny",
            "prefix",
            "service",
            "tiny_fragment",
            "challenge_answered",
        ];
        assert_eq!(reasons(), expected);
        assert_eq!(outcomes(&[]), CaptureOrder::DROPPED);
        let named = outcomes(&["deny".to_owned(), "challenge".to_owned()]);
        let bit = |outcome: Outcome| 1 << outcome as u32;
        let challenges = bit(Outcome::ChallengedBySilence) | bit(Outcome::RefusedChallenge);
        assert_eq!(named, bit(Outcome::Denied) | challenges);
    }

    #[test]
    fn the_help_has_every_reason_and_no_other() {
        let command = CaptureArgs::augment_args(clap::Command::new("capture"));
        let help = command.get_after_help().unwrap().to_string();
        let lines = help.lines().skip_while(|line| *line != "Reasons:").skip(1);
        let lines = lines.take_while(|line| !line.is_empty());
        let told: BTreeSet<_> = lines.filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(told, BTreeSet::from_iter(reasons()));
    }

    #[test]
    fn the_summary_says_what_is_missing() {
        assert_eq!(
            summary(100, 5000, 7, Duration::from_millis(2500)),
            "captured 100 of 5000 refused packets in 2.5 s; 4893 left out, 7 lost"
        );
    }
}
