//! Makes a start a transaction: each step first registers how it is undone.

use log::warn;

type Step = Box<dyn FnOnce() -> anyhow::Result<()>>;

/// Undoes what was done, the last step first, unless it is committed.
#[derive(Default)]
pub(super) struct Undo(Vec<(&'static str, Step)>);

impl Undo {
    /// Registers how the next step is undone; `what` completes "cannot …".
    pub(super) fn push(
        &mut self,
        what: &'static str,
        step: impl FnOnce() -> anyhow::Result<()> + 'static,
    ) {
        self.0.push((what, Box::new(step)));
    }

    pub(super) fn commit(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some((what, step)) = self.0.pop() {
            if let Err(error) = step() {
                warn!("cannot {what}: {error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    /// Runs steps until `fails`, and returns what was done and undone.
    fn run(steps: i32, fails: Option<i32>) -> Vec<i32> {
        let done = Rc::new(RefCell::new(Vec::new()));
        let mut undo = Undo::default();
        let all = (1..=steps).try_for_each(|step| {
            let undone = Rc::clone(&done);
            undo.push("undo it", move || {
                undone.borrow_mut().push(-step);
                // What cannot be undone keeps nothing else from being undone.
                anyhow::ensure!(step != 2, "as wanted");
                Ok(())
            });
            done.borrow_mut().push(step);
            if fails == Some(step) { Err(()) } else { Ok(()) }
        });
        if all.is_ok() {
            undo.commit();
        } else {
            drop(undo);
        }
        done.take()
    }

    #[test]
    fn whatever_step_fails_all_are_undone_the_last_one_first() {
        for fails in 1..=4 {
            let there: Vec<_> = (1..=fails).collect();
            let back: Vec<_> = there.iter().rev().map(|step| -step).collect();
            assert_eq!(run(4, Some(fails)), [there, back].concat());
        }
    }

    #[test]
    fn what_succeeded_is_not_undone() {
        assert_eq!(run(3, None), [1, 2, 3]);
    }
}
