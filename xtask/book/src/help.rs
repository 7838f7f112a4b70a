//! The page of all commands: what each prints with `--help`.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Markdown, a heading for each command.
pub(super) fn page(program: &Path) -> Result<String> {
    let mut text = "# Every command\n\nWhat each prints with `--help`.\n".to_owned();
    add(program, &[], &mut text)?;
    Ok(text)
}

fn add(program: &Path, verbs: &[&str], text: &mut String) -> Result<()> {
    let help = help(program, verbs)?;
    let name: Vec<_> = ["ctguard"].iter().chain(verbs).copied().collect();
    // A string takes all that is written to it.
    let _ = write!(text, "\n## {}\n\n```text\n{help}```\n", name.join(" "));
    for verb in subcommands(&help) {
        add(program, &[verbs, &[verb]].concat(), text)?;
    }
    Ok(())
}

fn help(program: &Path, verbs: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(verbs)
        .arg("--help")
        .env("COLUMNS", "80")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "ctguard {} --help failed", verbs.join(" "));
    String::from_utf8(output.stdout).context("the help is no UTF-8")
}

/// The names in the section `Commands:`.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let section = section.take_while(|line| !line.is_empty());
    // A line that goes on with a meaning is indented further.
    section.filter_map(|line| {
        let name = line.strip_prefix("  ")?;
        if name.starts_with(' ') { None } else { name.split(' ').next() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_the_names_of_their_section() {
        let help = "About\n\nCommands:\n  run     Guard\n          interfaces\n  status  Show\n\n\
                    Options:\n  -h  Help\n";
        assert_eq!(subcommands(help).collect::<Vec<_>>(), ["run", "status"]);
        assert_eq!(subcommands("Options:\n  -h  Help\n").count(), 0);
    }
}
