//! What the docs name: the files in architecture.md, the direct dependencies in dependencies.md, the
//! tests of what is promised, and the pages that any page links to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::workspace;

const ARCHITECTURE: &str = "docs/architecture.md";
const DEPENDENCIES: &str = "docs/dependencies.md";
/// Pages that name a test for each promise.
const PROMISES: [&str; 2] = ["docs/reliability.md", "docs/threat-model.md"];
/// Where a macro makes tests, one for each row of the lab.
const ROWS: &str = "tests/tests/rows.rs";
const ROW: &str = "the_promise_holds_for::";
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Refuses a named file or test that does not exist, a dependency without a row, and a stale row.
pub(super) fn check(files: &[String]) -> Result<()> {
    let root = workspace::root()?;
    let read = |file: &str| {
        fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
    };
    // Git knows a deleted file until the next commit.
    let files: Vec<&str> =
        files.iter().map(String::as_str).filter(|file| root.join(file).is_file()).collect();

    let text = read(ARCHITECTURE)?;
    refuse(
        &missing_paths(&text, &files),
        &format!("{ARCHITECTURE} names files that do not exist"),
    )?;

    let mut code = String::new();
    for file in files.iter().filter(|file| is(file, "rs")) {
        code += &read(file)?;
    }
    let rows_of_lab = read(ROWS)?;
    for page in PROMISES {
        let text = read(page)?;
        let missing = missing_tests(&text, &code, &rows_of_lab);
        refuse(&missing, &format!("{page} names tests that do not exist"))?;
    }

    let pages = files.iter().filter(|file| is(file, "md"));
    let mut broken = BTreeSet::new();
    for page in pages {
        broken.extend(broken_links(page, &read(page)?, &files));
    }
    let broken = broken.iter().map(String::as_str).collect();
    refuse(&broken, "links to files that do not exist")?;

    let mut manifests = Vec::new();
    for file in files.iter().filter(|file| names("Cargo.toml", file)) {
        let manifest: Table =
            toml::from_str(&read(file)?).with_context(|| format!("cannot parse {file}"))?;
        manifests.push(manifest);
    }
    let dependencies = direct_dependencies(&manifests);
    let text = read(DEPENDENCIES)?;
    let rows = rows(&text);
    refuse(&(&dependencies - &rows), &format!("{DEPENDENCIES} lacks a row"))?;
    refuse(&(&rows - &dependencies), &format!("{DEPENDENCIES} has a row for what is not used"))
}

fn refuse(names: &BTreeSet<&str>, what: &str) -> Result<()> {
    if !names.is_empty() {
        bail!("{what}: {}", names.iter().copied().collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

/// Code spans that end like a path and match no file.
fn missing_paths<'t>(text: &'t str, files: &[&str]) -> BTreeSet<&'t str> {
    let spans = text.split('`').skip(1).step_by(2);
    let paths = spans.filter(|span| span.ends_with('/') || is(span, "rs"));
    paths.filter(|path| !files.iter().any(|file| names(path, file))).collect()
}

/// Code spans that look like a test's name, a sentence, and are none.
fn missing_tests<'t>(text: &'t str, code: &str, rows_of_lab: &str) -> BTreeSet<&'t str> {
    let spans = text.split('`').skip(1).step_by(2);
    let is_there = |span: &&str| {
        if let Some(row) = span.strip_prefix(ROW) {
            return row.is_empty() || rows_of_lab.lines().any(|line| line.trim() == row);
        }
        let is_sentence = span.matches('_').count() >= 3 && !span.contains(' ');
        !is_sentence || code.contains(&format!("fn {span}("))
    };
    spans.filter(|span| !is_there(span)).collect()
}

fn is(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|own| own == extension)
}

/// Links of a page to files that are not there, each with the page.
fn broken_links(page: &str, text: &str, files: &[&str]) -> Vec<String> {
    let directory = Path::new(page).parent().unwrap_or(Path::new(""));
    let targets = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    let paths = targets.filter(|target| !target.contains("://"));
    let paths = paths.filter_map(|target| target.split('#').next()).filter(|path| !path.is_empty());
    let broken = paths.filter(|path| {
        let path = plain(&directory.join(path));
        !files.iter().any(|file| Path::new(file).starts_with(&path))
    });
    broken.map(|path| format!("{path} ({page})")).collect()
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain
}

/// Whether `path` names `file` or a directory above it. It may leave out the directories it is in.
fn names(path: &str, file: &str) -> bool {
    let (path, file) = (format!("/{path}"), format!("/{file}"));
    if path.ends_with('/') { file.contains(&path) } else { file.ends_with(&path) }
}

/// What the manifests depend on, except for each other.
fn direct_dependencies(manifests: &[Table]) -> BTreeSet<&str> {
    let own: BTreeSet<&str> = manifests
        .iter()
        .filter_map(|manifest| manifest.get("package")?.get("name")?.as_str())
        .collect();
    let targets = manifests.iter().filter_map(|manifest| manifest.get("target")?.as_table());
    let targets = targets.flat_map(Table::values).filter_map(Value::as_table);
    let tables = manifests.iter().chain(targets);
    let tables =
        tables.flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    tables
        .flatten()
        .map(|(name, value)| value.get("package").and_then(Value::as_str).unwrap_or(name))
        .filter(|name| !own.contains(name))
        .collect()
}

/// The first cell of each row below the head of the table.
fn rows(text: &str) -> BTreeSet<&str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    cells.map(|(first, _)| first).skip(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_whose_test_was_renamed_is_found() {
        let text = "| `a_list_that_is_full` | `the_promise_holds_for::bots` | `some_key` |\n\
                    | `an_old_name_of_it` | `the_promise_holds_for::robots` |";
        let code = "#[test]\nfn a_list_that_is_full() {}\n";
        let missing = missing_tests(text, code, "rows! {\n    bots\n}\n");
        assert_eq!(Vec::from_iter(missing), ["an_old_name_of_it", "the_promise_holds_for::robots"]);
    }

    #[test]
    fn a_path_may_leave_out_the_directories_it_is_in() {
        let files = ["ctguard-ebpf/datapath/src/packet/ipv4.rs"];
        let text = "`packet/ipv4.rs`, `ipv4.rs`, `packet/`, `ctguard-ebpf/` and `Ipv4`";
        assert!(missing_paths(text, &files).is_empty());
    }

    #[test]
    fn a_path_that_no_file_has_is_missing() {
        let files = ["ctguard-ebpf/datapath/src/packet/ipv4.rs"];
        let text = "```mermaid\na --> b\n```\n`v4.rs`, `packet/ipv6.rs` and `sources/`";
        let missing = BTreeSet::from(["v4.rs", "packet/ipv6.rs", "sources/"]);
        assert_eq!(missing_paths(text, &files), missing);
    }

    #[test]
    fn a_link_is_read_from_the_directory_of_its_page() {
        let files = ["README.md", "docs/lists.md", "docs/scenarios/README.md"];
        let text =
            "[a](lists.md#feeds) [b](../README.md) [c](scenarios/) [d](https://a.example) [e](#x)";
        assert!(broken_links("docs/top.md", text, &files).is_empty());
        assert_eq!(broken_links("README.md", text, &files).len(), 2);
    }

    #[test]
    fn dependencies_of_every_kind_count_and_own_crates_do_not() {
        let guard = "[package]\nname = 'guard'\n[dependencies]\nlog.workspace = true\n\
                     units = { path = '../units' }\n[dev-dependencies]\ntempfile = '3'\n";
        let units = "[package]\nname = 'units'\n[build-dependencies]\nnumbers = { package = 'num' }\n\
                     [target.'cfg(unix)'.dependencies]\nlibc = '0.2'\n";
        let manifests = [guard, units].map(|text| toml::from_str(text).unwrap());
        let expected = BTreeSet::from(["libc", "log", "num", "tempfile"]);
        assert_eq!(direct_dependencies(&manifests), expected);
    }

    #[test]
    fn the_head_of_the_table_is_no_row() {
        let text = "Text.\n\n| crate | for |\n| --- | --- |\n| log | records |\n| libc | calls |\n";
        assert_eq!(rows(text), BTreeSet::from(["log", "libc"]));
    }
}
