//! How many lines of Rust the product has, tests not counted: fewer are easier to carry on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace;

/// What the product should come to.
const BAR: usize = 30_000;

/// The crates of the product.
const PRODUCT: [&str; 2] = ["ctguard-ebpf/", "ctguard-userspace/"];
/// Files of tests by name, and directories of them.
const OF_TESTS: [&str; 5] = ["/tests.rs", "/testing.rs", "/plant.rs", "/plant/", "/tests/"];

/// Counts, and tells the number.
pub(super) fn tell(files: &[String]) -> Result<()> {
    let root = workspace::root()?;
    let mut lines = 0;
    for file in files.iter().filter(|file| is_of_the_product(file)) {
        let path = root.join(file);
        // One that is deleted is known to git until the next commit.
        if path.is_file() {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            lines += outside_of_tests(&text);
        }
    }
    eprintln!("xtask: {lines} lines of Rust in the product; the bar is {BAR}");
    Ok(())
}

fn is_of_the_product(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "rs")
        && PRODUCT.iter().any(|directory| file.starts_with(directory))
        && !OF_TESTS.iter().any(|tests| file.contains(tests))
}

/// Lines of a formatted file without its modules of tests, which are not indented.
fn outside_of_tests(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let module = lines.peek().is_some_and(|next| line == "#[cfg(test)]" && is_module(next));
        if !module {
            count += 1;
        } else if lines.next().is_some_and(|opening| opening.ends_with('{')) {
            lines.by_ref().find(|line| *line == "}");
        }
    }
    count
}

fn is_module(line: &str) -> bool {
    line.split_once("mod ")
        .is_some_and(|(before, _)| before.is_empty() || before.starts_with("pub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_tests_are_not_counted() {
        let text = "//! One.\n\nfn two() {}\n\n#[cfg(test)]\nmod tests {\n    fn a() {\n    }\n}\n\n\
                    #[cfg(test)]\npub(crate) mod testing;\n#[cfg(test)]\nfn counted() {}\n";
        assert_eq!(outside_of_tests(text), 7);
    }

    #[test]
    fn files_of_tests_are_not_of_the_product() {
        assert!(is_of_the_product("ctguard-userspace/units/src/lib.rs"));
        for file in [
            "ctguard-ebpf/datapath/src/guard/tests/lab.rs",
            "ctguard-userspace/kernel/src/conntrack/testing.rs",
            "ctguard-userspace/ctguard/tests/cli.rs",
            "tests/src/lib.rs",
            "ctguard-userspace/ebpf/ctguard.bpf.o",
        ] {
            assert!(!is_of_the_product(file), "{file}");
        }
    }
}
