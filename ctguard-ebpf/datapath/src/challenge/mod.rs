//! Challenges: test without memory whether there is a host at the source address of a SYN.
//!
//! The SYN is answered by a bare ACK whose acknowledgment number is a cookie. A client that sees an
//! acknowledgment of bytes that it never sent answers with a RST that carries the cookie (RFC 9293,
//! section 3.10.7.3), and sends its SYN again. `cookie` makes and checks the number, `answer` the
//! frame. A DNS query is answered by a truncated reply instead (`truncation`).

mod answer;
mod budget;
mod cookie;
mod siphash;
mod truncation;

pub use answer::{Answer, Answering, write_answer};
pub(crate) use budget::{has_left, take};
pub use cookie::{Slot, choose, proves};
pub use truncation::{PORT as DNS_PORT, Reversible, truncate, write_truncated};

/// A connection as its client's packets name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<A> {
    /// The client's address.
    pub source: A,
    /// The server's address.
    pub destination: A,
    /// The client's port, then the server's.
    pub ports: u32,
}

#[cfg(test)]
mod testing;
