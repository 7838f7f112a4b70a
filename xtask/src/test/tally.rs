//! Counts tests by what libtest and libtest-mimic print, and by the lines with which a test says
//! that it skipped itself: `skipped: NAME: REASON`.

use std::fmt;
use std::mem;

/// So many test binaries are named.
const SLOWEST: usize = 12;

/// The counts of all test binaries whose output was read.
#[derive(Default)]
pub(super) struct Tally {
    passed: usize,
    failed: usize,
    skipped: Vec<Skip>,
    failures: Vec<Failure>,
    /// Those that passed when they were run again.
    passed_again: Vec<Failure>,
    /// Binaries that began and gave no result.
    unended: usize,
    /// Whether the last one has not given its result yet.
    is_running: bool,
    /// What cargo runs, and how many seconds each took.
    binaries: Vec<(String, f64)>,
    current: Section,
}

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skip {
    name: String,
    reason: String,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) binary: String,
    pub(super) test: String,
}

/// One test binary, up to its `test result:` line.
#[derive(Default)]
struct Section {
    /// The test whose line was printed last; its result may follow on another line.
    running: String,
    passed: Vec<String>,
    failed: Vec<String>,
    ignored: Vec<Skip>,
    skipped_themselves: Vec<Skip>,
}

impl Tally {
    /// Takes one line of output into account.
    pub(super) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.finish(result);
            return;
        }
        let mut said = line;
        if let Some(binary) = binary(line) {
            self.unended += usize::from(mem::replace(&mut self.is_running, true));
            self.current = Section::default();
            self.binaries.push((binary.to_owned(), 0.0));
        }
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|it| it.split_once(" ... "))
        {
            name.trim().clone_into(&mut self.current.running);
            said = rest;
        }
        self.current.read(said.trim());
    }

    pub(super) fn skipped(&self) -> &[Skip] {
        &self.skipped
    }

    pub(super) fn has_failures(&self) -> bool {
        self.failed > 0 || !self.has_all_results()
    }

    const fn has_all_results(&self) -> bool {
        self.unended == 0 && !self.is_running
    }

    /// Whether so many tests passed, and nothing else was to be told.
    pub(super) fn has_passed(&self, tests: usize) -> bool {
        self.passed == tests && !self.has_failures() && self.skipped.is_empty()
    }

    /// The tests that failed, unless some failed without a name, or a binary gave no result.
    pub(super) fn failures(&self) -> Option<&[Failure]> {
        (self.has_all_results() && self.failures.len() == self.failed).then_some(&self.failures)
    }

    pub(super) fn passed_again(&self) -> &[Failure] {
        &self.passed_again
    }

    /// Takes these tests, which have passed in the meantime, for passed.
    pub(super) fn pass_again(&mut self, tests: Vec<Failure>) {
        self.failures.retain(|failure| !tests.contains(failure));
        self.failed -= tests.len();
        self.passed += tests.len();
        self.passed_again.extend(tests);
    }

    /// Test binaries with their seconds, the slowest first.
    pub(super) fn slowest(&self) -> String {
        let mut binaries = self.binaries.clone();
        binaries.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let shown = binaries.iter().take(SLOWEST).map(|(name, time)| format!("{name} {time:.0}"));
        shown.collect::<Vec<_>>().join(", ")
    }

    fn finish(&mut self, result: &str) {
        self.is_running = false;
        if let Some((_, time)) = self.binaries.last_mut() {
            *time += seconds(result);
        }
        let section = mem::take(&mut self.current);
        self.passed += count(result, "passed");
        self.failed += count(result, "failed");
        if let Some((binary, _)) = self.binaries.last() {
            let failed = section.failed.into_iter();
            self.failures.extend(failed.map(|test| Failure { binary: binary.clone(), test }));
        }

        let named = section.ignored.len();
        let ignored_as =
            |name: &str| section.ignored.iter().any(|skip| is_called(&skip.name, name));
        for skip in section.skipped_themselves {
            if ignored_as(&skip.name) {
                continue;
            }
            if section.passed.iter().any(|passed| is_called(passed, &skip.name)) {
                self.passed = self.passed.saturating_sub(1);
            }
            self.skipped.push(skip);
        }
        self.skipped.extend(section.ignored);
        // Quiet output has the number alone.
        for _ in named..count(result, "ignored") {
            self.skipped.push(Skip::new("a test", "ignored"));
        }
    }
}

impl Section {
    fn read(&mut self, said: &str) {
        if said == "ok" {
            self.passed.push(self.running.clone());
        } else if said == "FAILED" {
            self.failed.push(self.running.clone());
        } else if let Some(reason) = said.strip_prefix("ignored") {
            let reason = reason.strip_prefix(", ").unwrap_or("ignored");
            self.ignored.push(Skip::new(&self.running, reason));
        } else if let Some((name, reason)) =
            said.strip_prefix("skipped: ").and_then(|it| it.split_once(": "))
        {
            let skip = Skip::new(name, reason);
            if !self.skipped_themselves.contains(&skip) {
                self.skipped_themselves.push(skip);
            }
        }
    }
}

impl Skip {
    fn new(name: &str, reason: &str) -> Self {
        Self { name: name.to_owned(), reason: reason.to_owned() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.binary, self.test)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

/// The name of the binary that cargo says it runs: `Running tests/lab.rs (target/…/lab-0123abcd)`.
fn binary(line: &str) -> Option<&str> {
    let (_, path) =
        line.trim_start().strip_prefix("Running ")?.strip_suffix(')')?.rsplit_once('/')?;
    Some(path.rsplit_once('-')?.0)
}

/// The seconds in `ok. 3 passed; …; finished in 1.50s`.
fn seconds(result: &str) -> f64 {
    let time = result.rsplit_once("finished in ").and_then(|(_, time)| time.strip_suffix('s'));
    time.and_then(|time| time.parse().ok()).unwrap_or(0.0)
}

/// Whether the test `full`, maybe with its modules and its kind before it, is called `name`.
fn is_called(full: &str, name: &str) -> bool {
    full.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with([':', ' ']))
}

/// The number before `what` in `ok. 3 passed; 0 failed; …`.
fn count(result: &str, what: &str) -> usize {
    let words: Vec<_> = result.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let number = words.windows(2).find(|pair| pair[1] == what).map(|pair| pair[0]);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn results_of_all_binaries_are_summed() {
        let tally = tally(
            "running 3 tests\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "15 passed, 2 failed, 0 skipped");
        assert!(tally.has_failures());
    }

    #[test]
    fn a_failed_test_is_named_with_its_binary_until_it_passes() {
        let output = "     Running tests/lab.rs (target/release/deps/lab-0123456789abcdef)\n\
             test one ... ok\n\
             test two ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let mut tally = tally(output);
        let failure = Failure { binary: "lab".to_owned(), test: "two".to_owned() };
        assert_eq!(tally.failures(), Some([failure.clone()].as_slice()));
        tally.pass_again(vec![failure.clone()]);
        assert_eq!(
            (tally.to_string(), tally.has_failures()),
            ("2 passed, 0 failed, 0 skipped".to_owned(), false)
        );
        assert_eq!(tally.passed_again(), [failure]);
    }

    #[test]
    fn a_binary_that_gives_no_result_is_a_failure_without_a_name() {
        let named = "     Running tests/b.rs (target/debug/deps/b-1)\n\
             test y ... FAILED\n\
             test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n";
        let died = "     Running tests/a.rs (target/debug/deps/a-1)\ntest x ... FAILED\n";
        assert!(tally(named).failures().is_some());
        for output in [format!("{died}{named}"), format!("{named}{died}"), died.to_owned()] {
            let tally = tally(&output);
            assert!(tally.failures().is_none() && tally.has_failures(), "{output}");
        }
    }

    #[test]
    fn a_failure_without_a_name_is_no_list_of_failures() {
        let tally = tally("test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n");
        assert_eq!(tally.failures(), None);
    }

    #[test]
    fn the_slowest_binary_is_named_first() {
        let tally = tally(
            "     Running unittests src/lib.rs (target/debug/deps/ctguard_units-0123456789abcdef)\n\
             test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.60s\n\
             \x20    Running tests/rows.rs (target/debug/deps/rows-fedcba9876543210)\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 240.11s\n",
        );
        assert_eq!(tally.slowest(), "rows 240, ctguard_units 1");
    }

    #[test]
    fn an_ignored_test_is_skipped_and_named_with_its_reason() {
        let tally = tally(
            "test fast ... ok\n\
             test other::slow ... ignored, takes an hour\n\
             test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(tally.skipped(), [Skip::new("other::slow", "takes an hour")]);
    }

    #[test]
    fn a_test_that_skipped_itself_has_not_passed() {
        let tally = tally(
            "test fast ... ok\n\
             test verdicts::drops ... ok\n\
             ---- verdicts::drops stdout ----\n\
             skipped: drops: needs root\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
        assert_eq!(tally.skipped(), [Skip::new("drops", "needs root")]);
    }

    #[test]
    fn output_between_a_test_and_its_result_is_understood() {
        let tally = tally(
            "test [kernel] drops ... skipped: drops: no BPF here\n\
             ok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_test_both_ignored_and_telling_why_counts_once() {
        let tally = tally(
            "skipped: drops: needs root\n\
             test drops ... ignored\n\
             test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_whole_binary_may_be_skipped() {
        let tally = tally(
            "skipped: lab: needs root\n\
             test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn ignored_tests_that_are_only_counted_are_skipped_too() {
        let tally = tally("test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured\n");
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 2 skipped");
    }
}
