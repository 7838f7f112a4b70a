//! Challenges: whether somebody lives at the address that a SYN comes from, asked without memory.
//!
//! The SYN is answered by a bare ACK whose acknowledgment number is a cookie. A client that never
//! sent what it acknowledges answers with a RST that carries the cookie (RFC 9293, section
//! 3.10.7.3), and sends its SYN again. `cookie` makes and checks the number, `answer` the frame.

mod answer;
mod cookie;
mod siphash;

pub use answer::{Answer, Answering, write_answer};
pub use cookie::{Slot, choose, proves};

/// A connection as its client names it: what its SYN and its RST have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<A> {
    /// The client's address.
    pub source: A,
    /// The address that it wants to reach.
    pub destination: A,
    /// The client's port, then the other.
    pub ports: u32,
}

#[cfg(test)]
mod testing;
