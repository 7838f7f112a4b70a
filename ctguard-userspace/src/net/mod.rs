//! The interfaces of this network namespace, as rtnetlink tells them, what their drivers say of
//! them, and its rules.
//!
//! Never through `/sys`, which belongs to another namespace after `nsenter --net`.

pub(crate) mod clsact;
mod driver;
mod link;
mod netlink;
mod nf_tables;
mod resolve;
mod station;

pub(crate) use driver::{Driver, Statistic};
pub(crate) use link::{Attached, Link};
pub(crate) use netlink::{LinkEvents, emitted, links};
pub(crate) use nf_tables::{Rule, rules};
pub(crate) use resolve::{Refusal, Resolved, resolve};
pub(crate) use station::station;
