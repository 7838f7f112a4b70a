//! The lab's addresses: documentation and benchmark ranges, so that nothing real is ever named.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Addresses of far clients.
pub const FAR_CLIENTS: u16 = 800;
/// Networks that they are of: a /24 each, or an IPv6 /48.
const FAR_NETWORKS: u16 = 200;
/// Addresses of inside clients; IPv4 masquerades them all to the router's.
pub const INSIDE_CLIENTS: u8 = 100;

/// One request, one answer, over TCP.
pub const TCP_PORT: u16 = 80;
/// TCP that answers ping for ping until the client leaves.
pub const TCP_ECHO_PORT: u16 = 81;
/// One request, one answer, over UDP.
pub const UDP_PORT: u16 = 5000;
/// The port of the flood, forwarded to an address that never answers.
pub const FLOOD_PORT: u16 = 7000;
/// The ports of the server that completes a crowd's connections, and of the one that keeps them
/// open; both are forwarded.
pub use crate::recipe::layout::{CROWD_PORT, HOLD_PORT};
/// The port of the flood, dropped by the router's own rules.
pub const DROPPED_PORT: u16 = 7001;

/// One request, one answer, over UDP, where the far side counts its answers.
pub const DNS_PORT: u16 = 53;
/// The router's UDP ports that it forwards to an exposed host, which never answers: the dynamic
/// ports (RFC 6335). No inside client of the lab has one of them.
pub const EXPOSED_PORTS: (u16, u16) = (49152, 65535);
/// As many of the router's UDP ports, which its own rules drop.
pub const UNEXPOSED_PORTS: (u16, u16) = (32768, 49151);

/// Which protocol all traffic of a run speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, with masquerade and forwarded ports.
    Ipv4,
    /// IPv6, plainly routed.
    Ipv6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl Family {
    /// Far client number `index`, from 0 to below [`FAR_CLIENTS`].
    #[must_use]
    pub fn far_client(self, index: u16) -> IpAddr {
        let (network, host) = (index % FAR_NETWORKS, 1 + index / FAR_NETWORKS);
        match self {
            Self::Ipv4 => {
                let base = u32::from(Ipv4Addr::new(198, 19, 8, 0));
                Ipv4Addr::from(base + (u32::from(network) << 8) + u32::from(host)).into()
            }
            // A /64 each, as real clients have: a guard counts /64 by /64.
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0x100 + network, host, 0, 0, 0, 1).into(),
        }
    }

    /// The far client that is an office: many behind one address.
    #[must_use]
    pub fn office(self) -> IpAddr {
        self.far_client(FAR_CLIENTS - 1)
    }

    /// The far side's servers.
    #[must_use]
    pub fn far_server(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(203, 0, 113, 252).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0xfff, 0, 0, 0, 1).into(),
        }
    }

    /// Inside client number `index`, from 0 to below [`INSIDE_CLIENTS`].
    #[must_use]
    pub fn inside_client(self, index: u8) -> IpAddr {
        let host = 1 + index;
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 0, 1, host).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 1, host.into()).into(),
        }
    }

    /// The inside servers, by their own address.
    #[must_use]
    pub fn inside_server(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 0, 0, 80).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x80).into(),
        }
    }

    /// The inside servers as the far side addresses them.
    #[must_use]
    pub fn published_server(self) -> IpAddr {
        match self {
            Self::Ipv4 => self.router_wan(),
            Self::Ipv6 => self.inside_server(),
        }
    }

    /// The router's address on the guarded interface.
    #[must_use]
    pub fn router_wan(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(198, 51, 100, 1).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The inside address that swallows the flood without a word.
    #[must_use]
    pub fn sink(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 9, 0, 1).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 9, 0, 0, 0, 1).into(),
        }
    }

    /// The inside server of [`CROWD_PORT`] and [`HOLD_PORT`]; silent where they are not served.
    #[must_use]
    pub fn crowd_server(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 9, 0, 2).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 9, 0, 0, 0, 2).into(),
        }
    }

    /// What the flood addresses.
    #[must_use]
    pub fn flood_target(self, port: u16) -> SocketAddr {
        let address = match self {
            Self::Ipv4 => self.router_wan(),
            Self::Ipv6 if [CROWD_PORT, HOLD_PORT].contains(&port) => self.crowd_server(),
            Self::Ipv6 => self.sink(),
        };
        SocketAddr::new(address, port)
    }

    /// The source of the flood that is to be on the allow list.
    #[must_use]
    pub fn allowed_source(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(192, 0, 2, 77).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xa110, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The inside host that floods the outside; of IPv6, in a /64 of its own.
    #[must_use]
    pub fn infected_host(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 0, 2, 66).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0x66).into(),
        }
    }

    /// The source of a flood that has one.
    #[must_use]
    pub fn flood_source(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(192, 0, 2, 66).into(),
            Self::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1).into(),
        }
    }

    /// The first of the 2^28 spoofed sources: the bits below vary in the whole IPv4 address, and
    /// in the lower half of the IPv6 network part (`3fff::/20` is for documentation, RFC 9637).
    #[must_use]
    pub fn spoofed_base(self) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(96, 0, 0, 0).into(),
            Self::Ipv6 => Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }
}
