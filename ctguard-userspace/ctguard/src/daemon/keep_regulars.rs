//! Keeps the regulars in a file, every ten minutes and at the end.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use log::warn;

use super::{Guard, background::Background, state_file::StateFile};
use crate::files::FileError;
use ctguard_control::regulars::Regulars;
use ctguard_kernel::bpf::monotonic;

const INTERVAL: Duration = Duration::from_mins(10);

#[derive(Debug)]
pub(crate) struct RegularsKeeper {
    file: Option<StateFile>,
    saved: Duration,
    saving: Option<Background<Result<(), FileError>>>,
}

impl RegularsKeeper {
    /// Keeps them in `directory`; returns those that are saved there.
    pub(super) fn start(directory: Option<PathBuf>) -> (Self, Regulars) {
        let file = directory.and_then(|directory| {
            if let Err(error) = std::fs::create_dir_all(&directory) {
                warn!("regulars are not kept: cannot make {}: {error}", directory.display());
                return None;
            }
            StateFile::of_this_namespace(&directory)
        });
        let regulars = file.as_ref().map_or_else(Regulars::default, |file| {
            file.load().unwrap_or_else(|error| {
                warn!("regulars are learnt anew: {error}");
                Regulars::default()
            })
        });
        (Self { file, saved: monotonic(), saving: None }, regulars)
    }

    pub(crate) fn save(&mut self, regulars: &Regulars) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        // Two would write the same file.
        if let Some(saving) = self.saving.take() {
            let _ = saving.wait();
        }
        file.save(regulars).context("cannot keep the regulars")
    }

    /// The same on a thread: ticks do not wait for a disk.
    fn save_in_background(
        &mut self,
        now: Duration,
        regulars: impl FnOnce() -> Option<Regulars>,
    ) -> anyhow::Result<()> {
        if let Some(saved) = Background::take_finished(&mut self.saving) {
            saved.context("cannot keep the regulars")?;
        }
        if self.saving.is_none()
            && now >= self.saved + INTERVAL
            && let Some(file) = self.file.clone()
            && let Some(regulars) = regulars()
        {
            self.saved = now;
            self.saving = Some(Background::start("ctguard-save", move || file.save(&regulars))?);
        }
        Ok(())
    }
}

/// Takes the next step, if there is one. Waits for a look that is under way to end.
pub(crate) fn follow(guard: &mut Guard) -> anyhow::Result<()> {
    let looker = &guard.looker;
    let regulars = || looker.try_memory().map(|memory| memory.standings.regulars().clone());
    guard.regulars.save_in_background(monotonic(), regulars)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Hangs when a tick waits for a disk: a FIFO that nobody reads is a slow one.
    #[test]
    fn a_disk_that_takes_its_time_holds_up_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let (mut keeper, regulars) = RegularsKeeper::start(Some(directory.path().to_owned()));
        if keeper.file.is_none() {
            return;
        }
        keeper.save(&regulars).unwrap();
        let saved = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        let slow = saved.with_added_extension("new");
        mknodat(CWD, &slow, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let now = keeper.saved + INTERVAL;
        keeper.save_in_background(now, || None).unwrap();
        assert!(keeper.saving.is_none(), "a look is under way");
        keeper.save_in_background(now, || Some(regulars)).unwrap();
        assert!(Background::take_finished(&mut keeper.saving).is_none() && keeper.saving.is_some());
        // A FIFO cannot be synchronised.
        let _reader = File::open(&slow).unwrap();
        assert!(keeper.saving.take().unwrap().wait().is_err());
    }
}
