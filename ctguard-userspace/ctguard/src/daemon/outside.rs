//! A thread that is not confined (`kernel`: `confinement.rs`). It mounts and unmounts, which no confined
//! thread can, and starts the operator's program, which may do what the operator lets it.

use std::{
    io,
    path::Path,
    sync::mpsc::{SendError, Sender, channel},
    thread::Builder,
};

use super::Guard;
use crate::events::What;
use ctguard_kernel::{confinement::confine, urgency::be_urgent};

type Job = Box<dyn FnOnce() + Send>;

/// Without such a thread, because this one is not confined, work is done here.
#[derive(Debug, Default)]
pub(crate) struct Outside(Option<Sender<Job>>);

impl Outside {
    /// Starts the thread, whose work ticks wait for.
    fn start() -> io::Result<Self> {
        let (jobs, waiting) = channel::<Job>();
        let work = move || {
            be_urgent();
            for job in waiting {
                job();
            }
        };
        Builder::new().name("ctguard-outside".to_owned()).spawn(work)?;
        Ok(Self(Some(jobs)))
    }

    /// Runs `job` there, and waits for its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job: Job = Box::new(move || {
            let _ = tell.send(job());
        });
        match &self.0 {
            None => job(),
            Some(jobs) => {
                if let Err(SendError(job)) = jobs.send(job) {
                    job();
                }
            }
        }
        told.recv().expect("a panic in any thread ends the daemon")
    }
}

/// Confines this thread and those that it starts from now on. What cannot be given up is an event, and
/// the guard works without.
pub(super) fn go_on_confined(guard: &mut Guard, state: Option<&Path>) {
    // A directory can be written later only if it is there now.
    let _ = state.map(std::fs::create_dir_all);
    let confined = Outside::start().map_err(|error| error.to_string()).and_then(|outside| {
        guard.outside = outside;
        confine(guard.pins.path(), state).map_err(|error| error.to_string())
    });
    if let Err(error) = confined {
        guard.report(What::Unconfined { error });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn work_is_done_on_the_other_thread_or_here_if_there_is_none() {
        let here = thread::current().id();
        assert_eq!(Outside::default().run(|| thread::current().id()), here);
        let outside = Outside::start().unwrap();
        let there = outside.run(|| thread::current().id());
        assert_ne!(there, here);
        assert_eq!(outside.run(|| thread::current().id()), there);
    }
}
