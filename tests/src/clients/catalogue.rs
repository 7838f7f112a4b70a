//! Which clients are tried, and the servers that they ask: `tests/clients/catalogue.toml`.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::recipe::FloodKind;

const CATALOGUE: &str = include_str!("../../clients/catalogue.toml");

/// All clients and servers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// In the order of the table.
    pub client: Vec<Client>,
    /// Those that a client names are started.
    pub server: Vec<Server>,
}

/// A client as its users have it, with its own defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// By which it is asked for.
    pub name: String,
    /// Debian packages that hold it.
    #[serde(default)]
    pub packages: Vec<String>,
    /// A shell command that prints its version.
    pub version: String,
    /// What it does at its first contact, in a few words.
    pub does: String,
    /// What it first sends, and so the flood that it meets.
    pub protocol: Protocol,
    /// Servers that it needs.
    pub servers: Vec<String>,
    /// Shell commands before the first contact, which send nothing.
    #[serde(default)]
    pub setup: String,
    /// The first contact, in the shell. It is served when this ends with status 0, unless there is a
    /// line to wait for.
    pub contact: String,
    /// A part of the line that it prints once it is served.
    pub served_line: Option<String>,
}

/// What a client's first packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A SYN.
    Tcp,
    /// A datagram.
    Udp,
}

/// A server behind the router.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// By which clients name it.
    pub name: String,
    /// Debian packages that hold it.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Ports that it listens on, and that the router forwards to it.
    #[serde(default)]
    pub tcp: Vec<u16>,
    /// The same for UDP.
    #[serde(default)]
    pub udp: Vec<u16>,
    /// Shell commands that serve until they are killed.
    pub run: String,
}

impl Protocol {
    /// The flood under which it is challenged.
    #[must_use]
    pub fn flood(self) -> FloodKind {
        match self {
            Self::Tcp => FloodKind::SynSpoofed,
            Self::Udp => FloodKind::UdpSpoofed,
        }
    }

    /// As `ctguard status` names the class.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Catalogue {
    /// Reads the catalogue.
    pub fn read() -> Result<Self> {
        let catalogue: Self = toml::from_str(CATALOGUE).context("cannot read the catalogue")?;
        for client in &catalogue.client {
            catalogue.servers_of(client)?;
        }
        Ok(catalogue)
    }

    /// The clients of these names, all where there are none, that open with one of `protocols`.
    pub fn clients(&self, names: &[String], protocols: &[Protocol]) -> Result<Vec<&Client>> {
        for name in names {
            if !self.client.iter().any(|client| client.name == *name) {
                let known: Vec<_> = self.client.iter().map(|client| client.name.as_str()).collect();
                bail!("there is no client {name}; there are {}", known.join(", "));
            }
        }
        let asked = |client: &&Client| {
            protocols.contains(&client.protocol)
                && (names.is_empty() || names.contains(&client.name))
        };
        Ok(self.client.iter().filter(asked).collect())
    }

    /// The servers that these clients need, each once.
    pub fn servers(&self, clients: &[&Client]) -> Vec<&Server> {
        let needed =
            |server: &&Server| clients.iter().any(|client| client.servers.contains(&server.name));
        self.server.iter().filter(needed).collect()
    }

    /// All packages of Debian, each once.
    pub fn packages(&self) -> Vec<&str> {
        let clients = self.client.iter().flat_map(|client| &client.packages);
        let servers = self.server.iter().flat_map(|server| &server.packages);
        let ours = std::iter::once("tcpdump");
        let mut packages: Vec<_> = clients.chain(servers).map(String::as_str).chain(ours).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    }

    fn servers_of(&self, client: &Client) -> Result<()> {
        for name in &client.servers {
            ensure!(
                self.server.iter().any(|server| server.name == *name),
                "the client {} needs a server {name}, which the catalogue lacks",
                client.name
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_a_name_of_its_own_and_servers_of_the_catalogue() {
        let catalogue = Catalogue::read().expect("it is committed");
        let mut names: Vec<_> = catalogue.client.iter().map(|client| &client.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), catalogue.client.len());
    }

    #[test]
    fn no_two_servers_share_a_port() {
        let catalogue = Catalogue::read().expect("it is committed");
        for ports in [|server: &Server| server.tcp.clone(), |server: &Server| server.udp.clone()] {
            let mut all: Vec<_> = catalogue.server.iter().flat_map(ports).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }

    #[test]
    fn an_unknown_client_is_answered_with_all_that_there_are() {
        let catalogue = Catalogue::read().expect("it is committed");
        let error = catalogue.clients(&["cur".to_owned()], &[Protocol::Tcp]).unwrap_err();
        assert!(error.to_string().contains("there are curl"), "{error}");
    }
}
