//! What a guest tells of its steps, in lines that `tests/src/guest/report.rs` describes.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;

use super::machine::{End, Machine, PATIENCE};

/// Lines of a machine's console that are shown when a step failed.
const CONSOLE_TAIL: usize = 25;

/// The steps of one guest, as far as they are known.
#[derive(Default)]
pub(crate) struct Outcome {
    ended: Vec<Step>,
    running: Option<String>,
    facts: BTreeMap<String, String>,
    done: bool,
}

/// A step that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    name: String,
    /// The reason, if it failed.
    failure: Option<String>,
}

impl Outcome {
    /// Runs a machine, and prints its steps as they end, behind its name.
    pub(crate) fn of(machine: &Machine, name: &str) -> Result<Self> {
        let mut outcome = Self::default();
        let end = machine.run(|line| {
            if let Some(step) = outcome.read(line) {
                println!("  {name}  {step}");
            }
        })?;
        let unfinished = match end {
            End::PoweredOff => "the machine ended before this step did".to_owned(),
            End::TimedOut => format!("the machine was ended after {} s", PATIENCE.as_secs()),
        };
        if let Some(step) = outcome.end(&unfinished) {
            println!("  {name}  {step}");
        }
        if outcome.failed() > 0 {
            println!(
                "  {name}: the last lines of its console, all in {}:",
                machine.console.display()
            );
            println!("{}", machine.console_tail(CONSOLE_TAIL)?);
        }
        Ok(outcome)
    }

    /// Takes one line into account, and tells which step it ended.
    fn read(&mut self, line: &str) -> Option<&Step> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "step" => self.running = Some(rest.to_owned()),
            "fact" => {
                if let Some((name, value)) = rest.split_once(' ') {
                    self.facts.insert(name.to_owned(), value.to_owned());
                }
            }
            "ok" => return self.finish(None),
            "failed" => return self.finish(Some(rest.to_owned())),
            "done" => self.done = true,
            // The firmware's greeting.
            _ => {}
        }
        None
    }

    /// The machine has ended; a step that it left unfinished has failed for `reason`.
    fn end(&mut self, reason: &str) -> Option<&Step> {
        // A machine that tries nothing proves nothing.
        if self.done && !self.ended.is_empty() {
            return None;
        }
        self.running.get_or_insert_with(|| "the machine reports its last step".to_owned());
        self.finish(Some(reason.to_owned()))
    }

    pub(crate) fn passed(&self) -> usize {
        self.ended.len() - self.failed()
    }

    pub(crate) fn failed(&self) -> usize {
        self.ended.iter().filter(|step| step.failure.is_some()).count()
    }

    /// Something that the guest found out.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    fn finish(&mut self, failure: Option<String>) -> Option<&Step> {
        let name = self.running.take()?;
        self.ended.push(Step { name, failure });
        self.ended.last()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            None => write!(f, "ok      {}", self.name),
            Some(reason) => write!(f, "FAILED  {}: {reason}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        for line in lines {
            let _ = outcome.read(line);
        }
        outcome
    }

    #[test]
    fn steps_are_counted_by_how_they_ended() {
        let mut outcome =
            outcome(&["SeaBIOS", "step one", "ok", "step two", "failed no: such file", "done"]);
        assert_eq!(outcome.end("it ended"), None);
        assert_eq!((outcome.passed(), outcome.failed()), (1, 1));
        assert_eq!(outcome.ended[1].to_string(), "FAILED  two: no: such file");
    }

    #[test]
    fn facts_keep_their_spaces() {
        let outcome = outcome(&["step one", "fact release 6.1 of Debian"]);
        assert_eq!(outcome.fact("release"), Some("6.1 of Debian"));
        assert_eq!(outcome.fact("other"), None);
    }

    #[test]
    fn a_step_that_its_machine_did_not_survive_has_failed() {
        let mut outcome = outcome(&["step one", "ok", "step two"]);
        let ended = outcome.end("the machine hung").map(ToString::to_string);
        assert_eq!(ended.as_deref(), Some("FAILED  two: the machine hung"));
        assert_eq!((outcome.passed(), outcome.failed()), (1, 1));
    }

    #[test]
    fn a_machine_that_tried_nothing_has_failed() {
        assert!(outcome(&["done"]).end("it ended").is_some());
    }

    #[test]
    fn a_machine_that_never_speaks_has_failed() {
        let mut outcome = Outcome::default();
        assert!(outcome.end("it ended").is_some());
        assert_eq!((outcome.passed(), outcome.failed()), (0, 1));
    }
}
