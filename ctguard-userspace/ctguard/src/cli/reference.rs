#![cfg_attr(not(feature = "reference"), expect(dead_code, reason = "only the pages are tested"))]
//! `ctguard reference`, which only a build for packages has: manual pages and completions, made of the
//! command line's own definition.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use ctguard_settings::default_file;

use super::{Cli, CliError, Code};

/// Write manual pages to DIR/man and completions to DIR/completions
#[derive(Args, Debug)]
pub(super) struct ReferenceArgs {
    /// Made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Section of the manual that commands of the administrator have.
const COMMANDS: &str = "8";
const FILES: &str = "5";
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

const ABOUT_THE_FILE: [&str; 4] = [
    "ctguard run reads /etc/ctguard/ctguard.toml, and /etc/ctguard/conf.d/*.toml in the order of their \
     names. The last file that sets a key decides; prefixes of all files are listed. A key that no file \
     sets has its default. The command line of ctguard run goes before the files.",
    "A value with a unit is a string: \"80%\", \"200/s\", \"10s\". Bursts and zones are numbers, \
     switches are true or false.",
    "ctguard config check finds mistakes, ctguard config diff tells what a change would do, and \
     ctguard reload uses the files, all or nothing. ctguard save writes what was set since into \
     conf.d/90-saved.toml.",
    "Below are all keys, as ctguard config default prints them: each commented out, with its meaning \
     and its default.",
];

pub(super) fn run(args: &ReferenceArgs) -> Result<Code, CliError> {
    write(&args.directory).map_err(CliError::cannot("write the reference"))?;
    Ok(Code::Done)
}

fn write(directory: &Path) -> io::Result<()> {
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    for (name, page) in manual()? {
        fs::write(pages.join(name), page)?;
    }
    for shell in SHELLS {
        clap_complete::generate_to(
            shell,
            &mut Cli::command(),
            env!("CARGO_PKG_NAME"),
            &completions,
        )?;
    }
    Ok(())
}

/// Each page by the name of its file.
fn manual() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Cli::command();
    all.build();
    let mut pages = vec![("ctguard.toml.5".to_owned(), of_the_file()?)];
    add(&all, "ctguard", &mut pages)?;
    Ok(pages)
}

/// The page of a command, and those of its subcommands.
fn add(command: &clap::Command, name: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let page = Man::new(command.clone()).title(name).section(COMMANDS).manual("ctguard");
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((format!("{name}.{COMMANDS}"), text));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        add(verb, &format!("{name}-{}", verb.get_name()), pages)?;
    }
    Ok(())
}

fn of_the_file() -> io::Result<Vec<u8>> {
    let version = format!("ctguard {}", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["ctguard.toml", FILES, "", &version, "ctguard"]);
    page.control("SH", ["NAME"]);
    page.text([roman("ctguard.toml - the configuration of ctguard")]);
    page.control("SH", ["DESCRIPTION"]);
    for paragraph in ABOUT_THE_FILE {
        page.control("PP", []);
        page.text([roman(paragraph)]);
    }
    page.control("SH", ["KEYS"]);
    page.control("nf", []);
    for line in default_file().lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("ctguard-config"), roman("(8), "), bold("ctguard-set"), roman("(8)")]);
    let mut text = Vec::new();
    page.to_writer(&mut text)?;
    text.flush()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_the_file_have_a_page() {
        let pages = manual().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["ctguard.8", "ctguard-run.8", "ctguard-config-check.8", "ctguard.toml.5"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
    }

    #[test]
    fn the_page_of_the_file_has_every_key() {
        let page = String::from_utf8(of_the_file().unwrap()).unwrap();
        let plain = page.replace("\\-", "-").replace("\\&", "").replace("\\*(Aq", "'");
        for line in default_file().lines().filter(|line| line.contains(" = ")) {
            assert!(plain.contains(line), "{line} is not in\n{plain}");
        }
    }
}
