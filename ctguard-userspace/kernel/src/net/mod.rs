//! Interfaces, their drivers, and firewall rules of this network namespace, over netlink.
//!
//! Never through `/sys`, which shows another namespace after `nsenter --net`.

mod above;
mod attribute;
pub mod clsact;
mod conntrack_counters;
mod driver;
mod ethtool;
mod generic;
mod link;
mod neighbours;
mod netdev;
pub(crate) mod netlink;
mod nf_tables;
mod queues;
mod resolve;
mod station;
mod surroundings;
#[cfg(test)]
mod tests;

pub use above::{above_with_program, bond_without_native};
pub(crate) use attribute::{attribute, emitted, find, nested};
pub use conntrack_counters::conntrack_counters;
pub use driver::{Driver, Statistic};
pub use ethtool::{Channels, Offloads, speed};
pub use link::{Attached, Link, LinkEvents, link, links};
pub use netdev::XdpFeatures;
pub use nf_tables::{
    Chain, Flowtable, Hook, Old, Rule, Ruleset, TimeoutPolicy, rules, shared_timeouts,
};
pub use queues::received_by_queue;
pub use resolve::{Refusal, Resolved, lacks_members, resolve};
pub use station::Stations;
pub use surroundings::{Sight, Surroundings};
