//! `ctguard init`: propose a configuration for this machine.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{CliError, Code, context::require_privileges, operator};
use crate::{
    config::{Config, DEFAULT_PATH},
    files::FileError,
    terminal::{Terminal, complain},
};
use ctguard_audit::{first_run::Facts, host::Host};
use ctguard_kernel::{durable::replace, net};

const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Look at this machine and propose a configuration, in dry run
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctguard init            print a proposal, with the reason for each line\n  \
    ctguard init --write    put it at /etc/ctguard/ctguard.toml\n\n\
    It looks at interfaces and their drivers, routes, forwarding and NAT, listening sockets and the\n\
    table, and changes nothing but that file. A file that says something else stays, unless --force\n\
    is given. Then: systemctl enable --now ctguard, or ctguard run."
)]
pub(super) struct InitArgs {
    /// Write the file instead of printing it
    #[arg(long)]
    write: bool,
    /// Overwrite a file that says something else
    #[arg(long, requires = "write")]
    force: bool,
    /// File to write, if not /etc/ctguard/ctguard.toml
    #[arg(long, value_name = "FILE", requires = "write")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &InitArgs) -> Result<Code, CliError> {
    require_privileges()?;
    let links = net::links().map_err(CliError::cannot("read the interfaces"))?;
    let facts = Facts::read(&Host::at("/"), &links, operator::clients())?;
    let document = facts.document();
    if args.write {
        write(&document, args)?;
    } else {
        let mut out = Terminal::stdout();
        out.write_all(document.as_bytes()).map_err(CliError::Output)?;
    }
    if facts.interfaces.is_empty() {
        complain(format_args!("no interface with a route can be guarded; name one in the file"));
        return Ok(Code::No);
    }
    if args.write {
        say_what_is_next(args);
    }
    Ok(Code::Done)
}

fn write(document: &str, args: &InitArgs) -> Result<(), CliError> {
    let path = args.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
    match fs::read(path) {
        Ok(text) if text == document.as_bytes() => {
            complain(format_args!("{} says so already", path.display()));
            return Ok(());
        }
        Ok(_) if !args.force => return Err(CliError::OtherFile(path.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::new("read", path)(error).into());
        }
        Ok(_) | Err(_) => {}
    }
    // A link stays one.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    replace(&target, &target.with_extension("new"), document.as_bytes())
        .map_err(FileError::new("write", path))?;
    complain(format_args!("written to {}", path.display()));
    // Drop-ins may contradict it.
    Config::read(Some(path))?;
    Ok(())
}

fn say_what_is_next(args: &InitArgs) {
    let has_unit =
        UNITS.iter().any(|directory| Path::new(directory).join("ctguard.service").exists());
    match &args.config {
        Some(path) => complain(format_args!("next: ctguard run --config {}", path.display())),
        None if has_unit => complain(format_args!("next: systemctl enable --now ctguard")),
        None => complain(format_args!("next: ctguard run")),
    }
    complain(format_args!(
        "then: ctguard status names whom a limit would refuse, and ctguard enforce ends the dry run"
    ));
}
