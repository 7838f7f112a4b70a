//! Work that takes longer than a tick may wait, on a thread with low priority.

use std::{
    io,
    panic::resume_unwind,
    thread::{Builder, JoinHandle},
};

use rustix::process::setpriority_process;

const NICE: i32 = 10;

#[derive(Debug)]
pub(crate) struct Background<T>(JoinHandle<T>);

impl<T: Send + 'static> Background<T> {
    /// Starts `job` in the namespaces of this thread, under a name of at most 15 bytes.
    pub(crate) fn start(name: &str, job: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let work = move || {
            let _ = setpriority_process(None, NICE);
            job()
        };
        Builder::new().name(name.to_owned()).spawn(work).map(Self)
    }

    /// Takes the result of the work in `slot` once it is finished.
    pub(crate) fn take_finished(slot: &mut Option<Self>) -> Option<T> {
        slot.take_if(|work| work.0.is_finished()).map(Self::wait)
    }

    /// Waits for the answer.
    pub(crate) fn wait(self) -> T {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn an_answer_comes_once_and_the_daemon_stays_urgent() {
        let before = getpriority_process(None).unwrap();
        let (go, wait) = channel::<()>();
        let job = move || {
            let _ = wait.recv();
            getpriority_process(None).unwrap()
        };
        let mut slot = Some(Background::start("test", job).unwrap());
        assert_eq!(Background::take_finished(&mut slot), None);
        go.send(()).unwrap();
        let nice = loop {
            if let Some(answer) = Background::take_finished(&mut slot) {
                break answer;
            }
            std::thread::yield_now();
        };
        assert_eq!((nice, getpriority_process(None).unwrap()), (NICE, before));
        assert_eq!(Background::take_finished(&mut slot), None);
    }
}
