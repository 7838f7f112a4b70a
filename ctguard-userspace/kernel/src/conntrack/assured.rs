//! Who has completed a TCP handshake: the sources of ASSURED entries, as their first packet came.

use std::{net::IpAddr, ops::ControlFlow};

use ctguard_datapath::packet::protocol;

use super::{
    dump::{DumpError, StatusFilter, Summary, dump_filtered},
    status::ASSURED,
};

/// Tells the source of every ASSURED TCP entry in its original direction; one with several
/// connections is told for each.
///
/// Blocks: the kernel goes through the whole table and sends the ASSURED entries only, 0.1 s for
/// 260,000 entries of which few are ASSURED, and a second where all are.
pub fn assured_sources(mut each: impl FnMut(IpAddr)) -> Result<Summary, DumpError> {
    dump_filtered(StatusFilter { mask: ASSURED, value: ASSURED }, |entry, _| {
        if entry.protocol == protocol::TCP {
            each(entry.original.source);
        }
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
mod tests;
