//! The interfaces of this network namespace, as rtnetlink tells them, what their drivers say of
//! them, and its rules.
//!
//! Never through `/sys`, which belongs to another namespace after `nsenter --net`.

mod attribute;
pub(crate) mod clsact;
mod conntrack_counters;
mod driver;
mod ethtool;
mod generic;
mod link;
mod netdev;
pub(crate) mod netlink;
mod nf_tables;
mod queues;
mod resolve;
mod station;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use attribute::nested;
pub(crate) use attribute::{attribute, emitted, find};
pub(crate) use conntrack_counters::conntrack_counters;
pub(crate) use driver::{Driver, Statistic};
pub(crate) use ethtool::{Channels, Offloads};
pub(crate) use link::{Attached, Link, LinkEvents, link, links};
pub(crate) use netdev::XdpFeatures;
pub(crate) use nf_tables::{Rule, rules};
pub(crate) use queues::received_by_queue;
pub(crate) use resolve::{Refusal, Resolved, resolve};
pub(crate) use station::station;
