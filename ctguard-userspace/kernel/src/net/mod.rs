//! The interfaces of this network namespace, as rtnetlink tells them, what their drivers say of
//! them, and its rules.
//!
//! Never through `/sys`, which belongs to another namespace after `nsenter --net`.

pub mod clsact;
mod conntrack_counters;
mod driver;
mod ethtool;
mod generic;
mod link;
mod netdev;
mod netlink;
mod nf_tables;
mod queues;
mod resolve;
mod station;
#[cfg(test)]
mod tests;

pub use conntrack_counters::conntrack_counters;
pub use driver::{Driver, Statistic};
pub use ethtool::{Channels, Offloads};
pub use link::{Attached, Link};
pub use netdev::XdpFeatures;
pub use netlink::{LinkEvents, emitted, links};
pub use nf_tables::{Rule, rules};
pub use queues::received_by_queue;
pub use resolve::{Refusal, Resolved, resolve};
pub use station::station;
