//! Challenges: test without memory whether there is a host at the source address of a SYN.
//!
//! The SYN is answered by a bare ACK whose acknowledgment number is a cookie. A client that sees an
//! acknowledgment of bytes that it never sent answers with a RST that carries the cookie (RFC 9293,
//! section 3.10.7.3), and sends its SYN again. `cookie` makes and checks the number, `answer` the
//! frame.

mod answer;
mod cookie;
mod siphash;

pub use answer::{Answer, Answering, write_answer};
pub use cookie::{Slot, choose, proves};

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
