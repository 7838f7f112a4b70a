//! A path with delay: a relay between two TUN devices that holds each packet 10 ms.
//!
//! (netem would do, but kernels built without it are common.)

use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::Timespec,
};

use crate::{netns::Handle, syscall};

/// How long a packet travels, one way.
pub const ONE_WAY: Duration = Duration::from_millis(10);

/// The largest packet a TUN device hands over: its MTU is 1500, nothing is merged.
const LARGEST_PACKET: usize = 2048;
/// While packets travel the relay looks up so often, and not for each of them: a thousand flows a
/// second would spend a third of the router's CPU on waking it.
const LOOKS_EVERY: Duration = Duration::from_micros(250);

/// The relay; its TUN devices live as long as it does.
#[derive(Debug)]
pub struct Delay {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// Makes a TUN device in each of the two namespaces and carries packets between them.
    pub fn start(one: (&Handle, &str), other: (&Handle, &str)) -> Result<Self> {
        let open = |(namespace, name): (&Handle, &str)| {
            let file = namespace.run(|| Ok(syscall::open_tun(name)?));
            file.with_context(|| format!("cannot make the TUN device {name}"))
        };
        let (one, other) = (open(one)?, open(other)?);
        let stop = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        let stopped = stop.try_clone().context("cannot copy an eventfd")?;
        let thread = std::thread::Builder::new()
            .name("lab-delay".to_owned())
            .spawn(move || relay(&one, &other, &stopped))
            .context("cannot start the relay")?;
        Ok(Self { stop, thread: Some(thread) })
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
    to: &'f File,
    travelling: VecDeque<(Instant, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
}

fn relay(one: &File, other: &File, stop: &OwnedFd) {
    // Without real time (in some containers) the path jitters under load, which the baseline shows.
    let _ = syscall::become_real_time();
    let mut lanes = [Lane::new(one, other), Lane::new(other, one)];
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
    fn new(from: &'f File, to: &'f File) -> Self {
        Self { from, to, travelling: VecDeque::new(), spare: Vec::new() }
    }

    fn take_in(&mut self) {
        let due = Instant::now() + ONE_WAY;
        loop {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(LARGEST_PACKET, 0);
            let Ok(length) = (&mut &*self.from).read(&mut packet) else {
                self.spare.push(packet);
                return;
            };
            packet.truncate(length);
            self.travelling.push_back((due, packet));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some((due, packet)) = self.travelling.pop_front() {
            if due > now {
                self.travelling.push_front((due, packet));
                return;
            }
            // A device that is down, or going, loses what is sent to it, as a cut wire does.
            let written = (&mut &*self.to).write(&packet);
            if written.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                self.travelling.push_front((due, packet));
                return;
            }
            self.spare.push(packet);
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
