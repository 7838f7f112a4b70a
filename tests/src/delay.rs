//! A path with delay: a relay between two TUN devices that holds each packet.
//!
//! (netem would do, but kernels built without it are common.)

use std::{
    collections::VecDeque,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::Timespec,
};

use crate::{mixing::Arrivals, netns::Handle, syscall};

/// How long a packet and its answer travel together, unless told otherwise.
pub const ROUND_TRIP: Duration = Duration::from_millis(20);

/// The largest packet a TUN device hands over: its MTU is 1500, nothing is merged.
const LARGEST_PACKET: usize = 2048;
/// The path goes before whatever is at its ends.
const PRIORITY: i32 = 10;
/// While packets travel the relay looks up so often, and not for each of them: a thousand flows a
/// second would spend a third of the router's CPU on waking it.
const LOOKS_EVERY: Duration = Duration::from_micros(250);

/// The relay; its TUN devices live as long as it does.
#[derive(Debug)]
pub struct Delay {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    arrivals: Arc<Arrivals>,
}

impl Delay {
    /// Makes a TUN device in each of the two namespaces and carries packets between them.
    pub fn start(
        one: (&Handle, &str),
        other: (&Handle, &str),
        round_trip: Duration,
    ) -> Result<Self> {
        let open = |(namespace, name): (&Handle, &str)| {
            let file = namespace.run(|| Ok(syscall::open_tun(name)?));
            file.with_context(|| format!("cannot make the TUN device {name}"))
        };
        let (one, other) = (open(one)?, open(other)?);
        let back = Arrivals::new(one.try_clone().context("cannot copy a descriptor")?);
        let arrivals =
            Arc::new(Arrivals::new(other.try_clone().context("cannot copy a descriptor")?));
        let there = Arc::clone(&arrivals);
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        let stopped = stop.try_clone().context("cannot copy an eventfd")?;
        let thread = std::thread::Builder::new()
            .name("lab-delay".to_owned())
            .spawn(move || {
                let one_way = round_trip / 2;
                let lanes = [Lane::new(&one, &there, one_way), Lane::new(&other, &back, one_way)];
                relay(&one, &other, &stopped, lanes);
            })
            .context("cannot start the relay")?;
        Ok(Self { stop, thread: Some(thread), arrivals })
    }

    /// The way of packets into the other device.
    #[must_use]
    pub fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Packets on their way into one device, in the order in which they are due.
struct Lane<'f> {
    from: &'f File,
    to: &'f Arrivals,
    one_way: Duration,
    travelling: VecDeque<(Instant, Vec<u8>)>,
    buffer: Vec<u8>,
}

fn relay(one: &File, other: &File, stop: &OwnedFd, mut lanes: [Lane<'_>; 2]) {
    // Without real time (in some containers) the path jitters under load, which the baseline shows.
    let _ = syscall::become_real_time(None, PRIORITY);
    loop {
        let mut waiting = [
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            PollFd::new(one, PollFlags::IN),
            PollFd::new(other, PollFlags::IN),
        ];
        let travelling = lanes.iter().any(|lane| !lane.travelling.is_empty());
        let polled = if travelling {
            poll(&mut waiting[..1], Some(&timespec(LOOKS_EVERY)))
        } else {
            poll(&mut waiting, None)
        };
        if !waiting[0].revents().is_empty() || polled.is_err_and(|e| e != rustix::io::Errno::INTR) {
            return;
        }
        for lane in &mut lanes {
            lane.take_in();
            lane.deliver();
        }
    }
}

impl<'f> Lane<'f> {
    fn new(from: &'f File, to: &'f Arrivals, one_way: Duration) -> Self {
        Self { from, to, one_way, travelling: VecDeque::new(), buffer: vec![0; LARGEST_PACKET] }
    }

    fn take_in(&mut self) {
        let due = Instant::now() + self.one_way;
        while let Ok(length) = (&mut &*self.from).read(&mut self.buffer) {
            self.travelling.push_back((due, self.buffer[..length].to_vec()));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some((due, packet)) = self.travelling.pop_front() {
            if due > now {
                self.travelling.push_front((due, packet));
                return;
            }
            if let Err(packet) = self.to.deliver(packet) {
                self.travelling.push_front((due, packet));
                return;
            }
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
