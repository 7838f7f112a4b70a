//! The harness that kernel tests and the lab share: a NAT router in namespaces, legitimate
//! traffic through it, a flood, and what became of both.

pub mod addresses;
pub mod bench;
pub mod conntrack;
pub mod cpus;
pub mod crowd;
pub mod daemon;
pub mod data_path;
pub mod delay;
pub mod exec;
pub mod flood;
pub mod frames;
pub mod guard;
pub mod guest;
pub mod lab;
pub mod legit;
mod mapped;
pub mod netns;
pub mod object;
pub mod picture;
pub mod pinned;
pub mod product;
pub mod random;
pub mod recipe;
pub mod report;
pub mod require;
pub mod router;
pub mod run;
pub mod sources;
pub mod summary;
pub mod syscall;
pub mod sysctl;
pub mod table;
pub mod tcp_states;
pub mod wan;
pub mod wire;
