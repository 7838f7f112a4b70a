//! Requests and dumps over netlink, for every family.

use std::{io, iter, ops::ControlFlow, os::fd::OwnedFd, time::Duration};

use netlink_packet_core::{
    DoneBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NetlinkBuffer,
};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect,
        netlink::SocketAddrNetlink,
        recv, send, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

/// `struct nlmsghdr`.
pub(crate) const HEADER_LENGTH: usize = 16;
/// `struct nfgenmsg` at the start of every netfilter message: family, version, resource.
pub(crate) const NFGENMSG_LENGTH: usize = 4;
/// The kernel sends at most 32 KiB of a dump at a time (`netlink_recvmsg`).
pub(crate) const BUFFER_LENGTH: usize = 1 << 16;

/// How long to wait for the next answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How often to try a dump that is interrupted each time.
const ATTEMPTS: usize = 8;

/// Sends one request; returns the payloads of the answers.
pub(crate) fn request(
    family: Option<Protocol>,
    kind: u16,
    body: &[u8],
) -> io::Result<Vec<Vec<u8>>> {
    let (_, payloads) = exchange(family, &message(kind, NLM_F_REQUEST | NLM_F_ACK, body))?;
    Ok(payloads)
}

/// Lists kernel objects; returns their payloads.
///
/// The kernel marks a list that changed while it was sent (`NLM_F_DUMP_INTR`). Objects may be missing
/// from it, so the dump is repeated, and fails if every attempt was interrupted.
pub(crate) fn dump(family: Option<Protocol>, kind: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, body);
    uninterrupted(|| exchange(family, &request))
}

fn uninterrupted(
    mut exchange: impl FnMut() -> io::Result<(Answer, Vec<Vec<u8>>)>,
) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..ATTEMPTS {
        let (answer, payloads) = exchange()?;
        if !answer.is_interrupted {
            return Ok(payloads);
        }
    }
    Err(io::Error::other(format!("the list changed each of the {ATTEMPTS} times it was read")))
}

fn exchange(family: Option<Protocol>, request: &[u8]) -> io::Result<(Answer, Vec<Vec<u8>>)> {
    let socket = Socket::open(family)?;
    socket.send(request)?;
    let (mut answer, mut payloads) = (Answer::default(), Vec::new());
    let mut buffer = vec![0; BUFFER_LENGTH];
    while !answer.has_ended {
        answer.read(socket.receive(&mut buffer, RecvFlags::empty())?, |_, payload| {
            payloads.push(payload.to_owned());
            ControlFlow::Continue(())
        })?;
    }
    Ok((answer, payloads))
}

/// A socket that receives from the kernel alone.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// `None` is rtnetlink, whose number is 0.
    pub(crate) fn open(family: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, family)?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(SILENCE))?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&self, messages: &[u8]) -> io::Result<()> {
        send(&self.0, messages, SendFlags::empty())?;
        Ok(())
    }

    pub(crate) fn receive<'b>(
        &self,
        buffer: &'b mut [u8],
        flags: RecvFlags,
    ) -> io::Result<&'b [u8]> {
        match retry_on_intr(|| recv(&self.0, &mut *buffer, flags | RecvFlags::TRUNC)) {
            Ok((_, length)) => buffer
                .get(..length)
                .filter(|datagram| !datagram.is_empty())
                .ok_or_else(|| garbled("a message is empty or longer than the kernel's")),
            Err(Errno::AGAIN) if !flags.contains(RecvFlags::DONTWAIT) => {
                let text = format!("the kernel sent nothing for {} s", SILENCE.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// State of an answer that is read datagram by datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) has_ended: bool,
    /// Objects may be missing.
    pub(crate) is_interrupted: bool,
}

impl Answer {
    /// Passes the type and payload of each message to `each` until it breaks off. Fails if the kernel
    /// answers with an error.
    pub(crate) fn read(
        &mut self,
        datagram: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for message in messages(datagram) {
            let message = message?;
            self.is_interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_NOOP => {}
                NLMSG_DONE | NLMSG_ERROR => {
                    self.has_ended = true;
                    return verdict(message.payload());
                }
                kind => {
                    if each(kind, message.payload()).is_break() {
                        self.has_ended = true;
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LENGTH];
    bytes.extend(body);
    // The kernel refuses a length that does not fit.
    let length = bytes.len().try_into().unwrap_or(u32::MAX);
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(length);
    message.set_message_type(kind);
    message.set_flags(flags);
    bytes
}

/// The messages of one datagram.
pub(crate) fn messages(
    mut datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkBuffer<&[u8]>>> {
    iter::from_fn(move || {
        let bytes = std::mem::take(&mut datagram);
        if bytes.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(bytes) else {
            return Some(Err(garbled("a message is cut short")));
        };
        let length = HEADER_LENGTH + message.payload_length();
        datagram = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    })
}

/// The error in `NLMSG_DONE` or `NLMSG_ERROR`, which begin with its negative number or zero.
pub(crate) fn verdict(payload: &[u8]) -> io::Result<()> {
    match DoneBuffer::new_checked(payload).map(|done| done.code()) {
        Ok(0..) => Ok(()),
        Ok(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        Err(_) => Err(garbled("an answer ends without an error number")),
    }
}

pub(crate) fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: u16 = libc::RTM_NEWLINK;
    const MULTIPART: u16 = netlink_packet_core::NLM_F_MULTIPART;
    const INTERRUPTED: u16 = MULTIPART | NLM_F_DUMP_INTR;

    /// Fails when the kernel's mark is passed over, wherever in the answer it stands.
    #[test]
    fn a_dump_is_interrupted_whichever_of_its_messages_says_so() {
        let dump = |flags: [u16; 3]| {
            let [first, second, done] = flags;
            let parts = [message(LINK, first, &[1; 20]), message(LINK, second, &[2; 20])];
            read(&[parts.concat(), message(NLMSG_DONE, done, &[0; 4])]).unwrap()
        };
        let (answer, payloads) = dump([MULTIPART; 3]);
        assert!(answer.has_ended && !answer.is_interrupted);
        assert_eq!(payloads, [[1; 20], [2; 20]]);
        for at in 0..3 {
            let mut flags = [MULTIPART; 3];
            flags[at] = INTERRUPTED;
            assert!(dump(flags).0.is_interrupted, "message {at}");
        }
    }

    #[test]
    fn an_interrupted_dump_is_repeated_until_one_is_whole() {
        let mut left = 3;
        let payloads = uninterrupted(|| {
            left -= 1;
            let answer = Answer { has_ended: true, is_interrupted: left > 0 };
            Ok((answer, vec![vec![left]]))
        });
        assert_eq!(payloads.unwrap(), [[0]]);
    }

    #[test]
    fn a_dump_that_is_interrupted_each_time_is_an_error_in_the_end() {
        let mut attempts = 0;
        let error = uninterrupted(|| {
            attempts += 1;
            Ok((Answer { has_ended: true, is_interrupted: true }, vec![vec![1]]))
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "the list changed each of the 8 times it was read"
        );
        assert_eq!(attempts, ATTEMPTS);
    }

    #[test]
    fn an_answer_may_be_an_error_at_once_or_after_its_first_messages() {
        let refused = message(NLMSG_ERROR, 0, &(-libc::ENODEV).to_ne_bytes());
        assert_eq!(read(&[refused]).unwrap_err().raw_os_error(), Some(libc::ENODEV));
        let done = message(NLMSG_DONE, MULTIPART, &(-libc::ENOBUFS).to_ne_bytes());
        let error = read(&[message(LINK, MULTIPART, &[1; 20]), done]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    }

    #[test]
    fn an_acknowledgement_ends_an_answer() {
        let (answer, payloads) = read(&[message(NLMSG_ERROR, 0, &[0; 20])]).unwrap();
        assert!(answer.has_ended && payloads.is_empty());
    }

    #[test]
    fn messages_that_are_cut_short_or_claim_no_length_are_garbled() {
        let whole = message(LINK, 0, &[1; 20]);
        let no_length = [0; HEADER_LENGTH];
        for bytes in [&whole[..whole.len() - 1], &whole[..3], &no_length] {
            let error = read(&[bytes.to_vec()]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    fn read(datagrams: &[Vec<u8>]) -> io::Result<(Answer, Vec<Vec<u8>>)> {
        let (mut answer, mut payloads) = (Answer::default(), Vec::new());
        for datagram in datagrams {
            answer.read(datagram, |_, payload| {
                payloads.push(payload.to_owned());
                ControlFlow::Continue(())
            })?;
        }
        Ok((answer, payloads))
    }

    #[test]
    fn a_damaged_answer_is_garbled_or_another_one() {
        let parts = [message(LINK, MULTIPART, &[1; 20]), message(NLMSG_DONE, MULTIPART, &[0; 4])];
        let refused = message(NLMSG_ERROR, 0, &(-libc::ENODEV).to_ne_bytes());
        ctguard_damage::survives!(&[&parts.concat(), &refused], |bytes: &[u8]| {
            let told = read(&[bytes.to_vec()]).map_or(0, |(_, payloads)| payloads.len());
            assert!(told <= bytes.len() / HEADER_LENGTH);
        });
    }
}
