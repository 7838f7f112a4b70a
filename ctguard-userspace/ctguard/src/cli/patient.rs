//! A file or pipe whose reader may stall: what is written waits for it, but not for ever.

use std::{
    fs::File,
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// The reader's time once the writer is to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// A pipe that can be written to takes so much at once (`PIPE_BUF`).
const PIPE_BUF: usize = 4096;

#[derive(Debug)]
pub(super) struct Patient {
    file: File,
    until: Instant,
}

impl Patient {
    /// Gives up soon after `span`, or after a signal that comes while the reader stalls.
    pub(super) fn new(file: File, span: Duration) -> Self {
        let now = Instant::now();
        Self { file, until: now.checked_add(span + PATIENCE).unwrap_or(now) }
    }

    fn wait(&mut self) -> io::Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&left)) {
                Ok(0) => {
                    let error = "its reader has stalled; what it did not take is lost";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, error));
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => self.until = self.until.min(Instant::now() + PATIENCE),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait()?;
        self.file.write(&bytes[..bytes.len().min(PIPE_BUF)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd, thread};

    use super::*;

    fn pipe(span: Duration) -> (io::PipeReader, Patient) {
        let (reader, writer) = io::pipe().unwrap();
        let until = Instant::now() + span;
        (reader, Patient { file: OwnedFd::from(writer).into(), until })
    }

    /// Fails when a reader that has stopped keeps a capture from ending.
    #[test]
    fn a_reader_that_stalls_is_given_up() {
        let (_reader, mut patient) = pipe(Duration::from_millis(50));
        let error = patient.write_all(&vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_slow_reader_gets_all() {
        let (mut reader, mut patient) = pipe(Duration::from_mins(1));
        let reads = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        patient.write_all(&vec![0; 1 << 20]).unwrap();
        drop(patient);
        assert_eq!(reads.join().unwrap(), 1 << 20);
    }
}
