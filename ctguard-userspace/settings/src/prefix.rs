//! Prefixes of sources as operators write them: `192.0.2.7`, `2001:db8::/48`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

/// Why a prefix cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PrefixError {
    #[error("{text} is not an IPv4 or IPv6 prefix (write 192.0.2.0/24 or 2001:db8::/48)")]
    Syntax { text: String },
    #[error(
        "{text} is everybody; to let everybody in, ctguard set dry-run=on; to let nobody in, use a \
         firewall"
    )]
    Everybody { text: String },
}

/// Reads a prefix. An address is the prefix of itself; bits behind the prefix are cut off. An IPv4
/// address that is written as an IPv6 one (`::ffff:192.0.2.7`) is an IPv4 address on the wire.
pub fn parse_prefix(text: &str) -> Result<IpNet, PrefixError> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(|prefix| canonical(prefix.trunc()))
        .map_err(|_| PrefixError::Syntax { text: text.to_owned() })
}

fn canonical(prefix: IpNet) -> IpNet {
    if let IpNet::V6(net) = prefix
        && let Some(address) = net.addr().to_ipv4_mapped()
        && let Some(length) = net.prefix_len().checked_sub(96)
        && let Ok(net) = Ipv4Net::new(address, length)
    {
        return IpNet::V4(net);
    }
    prefix
}

/// Reads a prefix for a list, which must not be everybody.
pub fn parse_listed(text: &str) -> Result<IpNet, PrefixError> {
    match parse_prefix(text)? {
        prefix if prefix.prefix_len() == 0 => Err(PrefixError::Everybody { text: text.to_owned() }),
        prefix => Ok(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_of_itself() {
        assert_eq!(parse_prefix("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(parse_prefix("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
    }

    /// Fails when an operator allows the address that sshd shows, and no packet has it.
    #[test]
    fn an_ipv4_address_that_is_written_as_an_ipv6_one_is_an_ipv4_address() {
        for (text, prefix) in [
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::FFFF:c000:207/128", "192.0.2.7/32"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("::ffff:192.0.2.7/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(parse_prefix(text).unwrap().to_string(), prefix);
        }
        assert!(parse_listed("::ffff:0.0.0.0/96").is_err());
    }

    #[test]
    fn bits_behind_the_prefix_are_cut_off() {
        assert_eq!(parse_prefix("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["300.1.1.1/8", "192.0.2.0/33", "192.0.2", "", "2001:db8::/129", "wan0"] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_does_not_take_everybody() {
        for text in ["0.0.0.0/0", "::/0", "1.2.3.4/0"] {
            let everybody = Err(PrefixError::Everybody { text: text.to_owned() });
            assert_eq!(parse_listed(text), everybody);
            assert!(parse_prefix(text).is_ok(), "but shows all of it");
        }
    }
}
