//! Makes the documentation's site: the pages of `docs`, and two that are the program's own words.
//!
//! `cargo xtask docs` calls it with the program, `docs`, and the directory to write to.

#![forbid(unsafe_code)]

mod help;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use ctguard_settings::default_file;
use mdbook_driver::MDBook;

/// The list of pages; the generated ones come last.
const SUMMARY: &str = "SUMMARY.md";
const GENERATED: &str =
    "- [Every command](every-command.md)\n- [Every setting](every-setting.md)\n";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctguard-book: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [program, docs, out] = &*arguments else { bail!("usage: ctguard-book PROGRAM DOCS OUT") };
    let source = out.join("source");
    copy(docs, &source)?;
    write(&source.join("every-command.md"), &help::page(program)?)?;
    write(&source.join("every-setting.md"), &settings())?;
    let summary = source.join(SUMMARY);
    let listed = fs::read_to_string(&summary).with_context(|| cannot("read", &summary))?;
    write(&summary, &(listed + GENERATED))?;
    MDBook::load(&source)?.build()
}

fn settings() -> String {
    format!(
        "# Every setting\n\nWhat `ctguard config default` prints: every key of \
         `/etc/ctguard/ctguard.toml`, with its meaning and its default.\n\n```toml\n{}```\n",
        default_file()
    )
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| cannot("make", to))?;
    for entry in fs::read_dir(from).with_context(|| cannot("read", from))? {
        let entry = entry.with_context(|| cannot("read", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| cannot("copy", &from))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| cannot("write", path))
}

fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} {}", path.display())
}
