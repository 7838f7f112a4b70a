//! The challenge in the kernel, without the guard around it: the answer to a SYN, byte by byte as
//! the host makes it, and the RST that ends it. And the guard's own answer to a DNS query.

mod challenger;
mod dns;
mod frames;
mod veth;

use anyhow::{Context as _, Result, ensure};
use ctguard_datapath::{
    challenge::{Answer, Connection, Slot, choose, write_answer},
    packet::{Ipv4, Ipv6},
};
use ctguard_tests::{
    frames::flags::{ACK, RST, SYN},
    random::Random,
    require,
};

use challenger::{Challenger, KEY, SLOT, Verdict};
use frames::{Family, frames};

const ROUNDS: usize = 200;
/// The guard around it needs most of what the kernel allows.
const MOST_INSTRUCTIONS: u32 = 60_000;

#[test]
fn the_kernel_answers_a_syn_with_the_bytes_that_the_host_writes() -> Result<()> {
    if !require::root("the_kernel_answers_a_syn_with_the_bytes_that_the_host_writes") {
        return Ok(());
    }
    let challenger = Challenger::load(SLOT)?;
    let mut random = Random::new(1);
    for _ in 0..ROUNDS {
        all_are_answered::<Ipv4>(&challenger, &mut random)?;
        all_are_answered::<Ipv6>(&challenger, &mut random)?;
    }
    Ok(())
}

fn all_are_answered<A: Family>(challenger: &Challenger, random: &mut Random) -> Result<()> {
    let (connection, sequence) = (connection::<A>(random), random.word());
    let cookie = choose(&KEY, &connection, sequence, SLOT).context("a cookie")?;
    let answer = Answer { connection, sequence, cookie };
    for (name, frame) in frames(&connection, sequence, SYN)? {
        let mut expected = frame.clone();
        let bytes = write_answer(&mut expected, &answer).context(name.clone())?;
        let (verdict, got) = challenger.run(&frame)?;
        ensure!(verdict == Verdict::Send, "{name}: {verdict:?}");
        ensure!(got == expected[..bytes], "{name}: {got:02x?} and not {:02x?}", &expected[..bytes]);
    }
    Ok(())
}

#[test]
fn a_rst_with_the_cookie_ends_here_for_two_slots() -> Result<()> {
    if !require::root("a_rst_with_the_cookie_ends_here_for_two_slots") {
        return Ok(());
    }
    let ends = [(-1, false), (0, true), (1, true), (2, false)];
    for (later, expected) in ends {
        let challenger = Challenger::load(Slot(SLOT.0.wrapping_add_signed(later)))?;
        let mut random = Random::new(2);
        for _ in 0..ROUNDS {
            ends_here::<Ipv4>(&challenger, &mut random, expected)?;
            ends_here::<Ipv6>(&challenger, &mut random, expected)?;
        }
    }
    Ok(())
}

fn ends_here<A: Family>(
    challenger: &Challenger,
    random: &mut Random,
    expected: bool,
) -> Result<()> {
    let connection = connection::<A>(random);
    let cookie = choose(&KEY, &connection, random.word(), SLOT).context("a cookie")?;
    let verdict = |sequence, flags| -> Result<Verdict> {
        let (_, frame) = frames(&connection, sequence, flags)?.swap_remove(0);
        Ok(challenger.run(&frame)?.0)
    };
    let with_cookie = verdict(cookie, RST)?;
    let expected = if expected { Verdict::Drop } else { Verdict::Pass };
    ensure!(with_cookie == expected, "{connection:?}: {with_cookie:?}");
    ensure!(verdict(cookie ^ 1, RST)? == Verdict::Pass, "{connection:?}: another number");
    Ok(())
}

#[test]
fn what_is_no_syn_is_not_answered() -> Result<()> {
    if !require::root("what_is_no_syn_is_not_answered") {
        return Ok(());
    }
    let challenger = Challenger::load(SLOT)?;
    let connection = connection::<Ipv4>(&mut Random::new(3));
    for flags in [SYN | ACK, ACK, 0] {
        for (name, frame) in frames(&connection, 1, flags)? {
            let (verdict, got) = challenger.run(&frame)?;
            ensure!(verdict == Verdict::Pass && got == frame, "{name}, flags {flags}");
        }
    }
    Ok(())
}

#[test]
fn a_syn_in_a_frame_of_several_buffers_is_answered_and_grows_no_longer() -> Result<()> {
    if !require::root("a_syn_in_a_frame_of_several_buffers_is_answered_and_grows_no_longer") {
        return Ok(());
    }
    let challenger = Challenger::load(SLOT)?;
    let connection = connection::<Ipv6>(&mut Random::new(4));
    let (_, mut frame) = frames(&connection, 7, SYN)?.swap_remove(0);
    // Longer than a page's first buffer, so the kernel makes it one of several.
    frame.resize(9_000, 0xaa);
    let cookie = choose(&KEY, &connection, 7, SLOT).context("a cookie")?;
    let answer = Answer { connection, sequence: 7, cookie };
    let (verdict, got) = challenger.run(&frame)?;
    let frame_bytes = frame.len();
    let bytes = write_answer(&mut frame, &answer).context("an answer")?;
    let answered = verdict == Verdict::Send && got.get(..bytes) == Some(&frame[..bytes]);
    // What lies in the other buffers stays behind the answer, as padding.
    ensure!(answered && got.len() <= frame_bytes, "{verdict:?}: {} bytes", got.len());
    Ok(())
}

#[test]
fn the_verifier_is_soon_done_with_a_challenge() -> Result<()> {
    if !require::root("the_verifier_is_soon_done_with_a_challenge") {
        return Ok(());
    }
    let info = Challenger::load(SLOT)?.info()?;
    let processed = info.verified_instruction_count().context("since Linux 5.16")?;
    let translated = info.size_translated().context("root sees the size")? / 8;
    println!("challenge: {processed} instructions verified, {translated} in the program");
    ensure!(processed <= MOST_INSTRUCTIONS, "{processed} instructions verified");
    Ok(())
}

fn connection<A: Family>(random: &mut Random) -> Connection<A> {
    let (source, destination) = (A::any(random), A::any(random));
    Connection { source, destination, ports: random.word() }
}
