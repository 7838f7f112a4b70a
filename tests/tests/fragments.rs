//! Frames whose headers lie outside the first buffer, as drivers with large frames give them to XDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use ctguard_layout::{Class, Counter, Outcome};
use ctguard_tests::{
    data_path::{Action, DataPath, Setup},
    frames, require,
};

const BURST: u32 = 10;

/// Fails when a flood that a driver leaves in fragments is not limited: it would all pass, and fill the
/// table.
#[test]
fn headers_that_lie_in_fragments_are_judged_as_any_others() -> Result<()> {
    let test = "headers_that_lie_in_fragments_are_judged_as_any_others";
    if !require::root(test) || !require::test_runs_in_fragments(test) {
        return Ok(());
    }
    for first_buffer in [0, 14, 34, 41] {
        let path = DataPath::load(Setup { burst: BURST, ..Setup::default() })?;
        let flows = (0..200).flat_map(|number| [(number, IPV4), (number, IPV6)]);
        for (number, [from, to]) in flows {
            let mut frame = frames::udp((from, 1024 + number), (to, 53))?;
            frame.resize(9000, 0);
            path.judge_in_fragments(&frame, first_buffer).context("a jumbo frame")?;
        }
        let count = |outcome| path.counter(Counter::Flows(outcome, Class::Udp));
        let (admitted, refused) = (count(Outcome::Admitted)?, count(Outcome::RefusedSource)?);
        ensure!(
            admitted >= 2 * u64::from(BURST) && admitted < 100 && admitted + refused == 400,
            "{first_buffer} bytes in the first buffer: {admitted} admitted, {refused} refused"
        );
    }
    Ok(())
}

/// Fails when a frame that ends in its headers is read on in what an earlier one left.
#[test]
fn a_frame_that_is_short_in_fragments_is_malformed() -> Result<()> {
    let test = "a_frame_that_is_short_in_fragments_is_malformed";
    if !require::root(test) || !require::test_runs_in_fragments(test) {
        return Ok(());
    }
    let path = DataPath::load(Setup::default())?;
    let [from, to] = IPV4;
    let frame = frames::udp((from, 1024), (to, 53))?;
    ensure!(path.judge_in_fragments(&frame, 0)? == Action::Pass);
    ensure!(path.judge_in_fragments(&frame[..30], 0)? == Action::Pass);
    let malformed = path.counter(Counter::Packets(Outcome::MalformedIpv4))?;
    let admitted = path.counter(Counter::Flows(Outcome::Admitted, Class::Udp))?;
    ensure!((malformed, admitted) == (1, 1), "{malformed} malformed, {admitted} admitted");
    Ok(())
}

const IPV4: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];
const IPV6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
