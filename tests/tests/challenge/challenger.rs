//! The lab's program that challenges everybody, loaded.

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, TestRunOptions,
    maps::Array,
    programs::{ProgramInfo, TestRun as _, Xdp},
};
use ctguard_datapath::challenge::Slot;
use ctguard_layout::CookieKey;
use ctguard_tests::object;

pub(crate) const KEY: CookieKey =
    CookieKey { words: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210] };
/// The slot in which cookies are made.
pub(crate) const SLOT: Slot = Slot(1_000);

const PROGRAM: &str = "lab_challenge";

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Pass,
    Send,
}

pub(crate) struct Challenger(Ebpf);

impl Challenger {
    /// The program, to which it is always `slot`.
    pub(crate) fn load(slot: Slot) -> Result<Self> {
        let mut object = object::load()?;
        object::program(&mut object, PROGRAM)?;
        let key = object.map_mut("lab_cookie_key").context("no map lab_cookie_key")?;
        Array::<_, [u64; 2]>::try_from(key)?.set(0, KEY.words, 0)?;
        let now = object.map_mut("lab_slot").context("no map lab_slot")?;
        Array::<_, [u32; 2]>::try_from(now)?.set(0, [slot.0, 0], 0)?;
        Ok(Self(object))
    }

    /// Runs it on a frame and tells what it made of it.
    pub(crate) fn run(&self, frame: &[u8]) -> Result<(Verdict, Vec<u8>)> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        };
        let run = self.program()?.test_run(options)?;
        out.truncate(usize::try_from(run.data_size_out)?);
        let verdict = match run.return_value {
            1 => Verdict::Drop,
            2 => Verdict::Pass,
            3 => Verdict::Send,
            other => bail!("the program returned {other}"),
        };
        Ok((verdict, out))
    }

    /// What the kernel tells of it.
    pub(crate) fn info(&self) -> Result<ProgramInfo> {
        Ok(self.program()?.info()?)
    }

    fn program(&self) -> Result<&Xdp> {
        Ok(self.0.program(PROGRAM).with_context(|| format!("no program {PROGRAM}"))?.try_into()?)
    }
}
