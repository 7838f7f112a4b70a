//! What the running daemon was told by its command line: which configuration it reads, and where it
//! keeps its state.

use std::{
    ffi::OsStr,
    fmt::Display,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Once,
};

use clap::Parser as _;

use super::{Cli, Command, Context, run::RunArgs};
use crate::{
    config::{Config, ConfigError, DEFAULT_PATH},
    terminal::complain,
};
use ctguard_kernel::lock;

/// Where a daemon keeps its state that was not told.
pub(super) const DEFAULT_STATE: &str = "/var/lib/ctguard";

/// The file that the daemon of this guard was told to read, if one runs and was told.
pub(super) fn configuration_in_use(context: &Context) -> Option<PathBuf> {
    let told = Told::by(context)?;
    Some(told.absolute(told.args.config.as_ref()?))
}

/// What a reload would read.
pub(super) fn read_configuration_in_use(context: &Context) -> Result<Config, ConfigError> {
    Config::read(configuration_in_use(context).as_deref())
}

/// The state directory that was `named`, or else that of the daemon of this guard.
pub(super) fn state_in_use(named: Option<&Path>, context: &Context) -> PathBuf {
    let of_daemon = || Told::by(context).map(|told| told.absolute(&told.args.state));
    named.map(Path::to_owned).or_else(of_daemon).unwrap_or_else(|| DEFAULT_STATE.into())
}

struct Told {
    args: RunArgs,
    /// Relative paths count from where the daemon was started.
    directory: PathBuf,
}

impl Told {
    fn by(context: &Context) -> Option<Self> {
        let pid = lock::daemon_of(context.pins.path())?.pid?;
        let process = Path::new("/proc").join(pid.to_string());
        let args = arguments(&fs::read(process.join("cmdline")).ok()?);
        if args.is_none() {
            // A command may ask twice.
            static TOLD: Once = Once::new();
            TOLD.call_once(|| complain(format_args!("{}", unknown(pid))));
        }
        let args = args?;
        Some(Self { args, directory: fs::read_link(process.join("cwd")).unwrap_or_default() })
    }

    /// An absolute path replaces the directory.
    fn absolute(&self, path: &Path) -> PathBuf {
        self.directory.join(path)
    }
}

fn unknown(pid: impl Display) -> String {
    format!(
        "warning: cannot read the command line of the daemon (process {pid}), which may be of another \
         release; assuming that it uses {DEFAULT_PATH} and {DEFAULT_STATE}"
    )
}

fn arguments(words: &[u8]) -> Option<RunArgs> {
    let words = words.split(|&byte| byte == 0).map(OsStr::from_bytes);
    let words = words.filter(|word| !word.is_empty());
    let Command::Run(args) = Cli::try_parse_from(words).ok()?.command else { return None };
    Some(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &str) -> Option<Told> {
        let args = arguments(words.replace(' ', "\0").as_bytes())?;
        Some(Told { args, directory: "/srv".into() })
    }

    #[test]
    fn the_file_of_a_daemon_is_known_from_its_command_line() {
        let file = |words: &str| {
            let told = told(words)?;
            Some(told.absolute(told.args.config.as_ref()?))
        };
        assert_eq!(file("/usr/bin/ctguard run -i wan0 --config /etc/it "), Some("/etc/it".into()));
        assert_eq!(file("ctguard --pin-path=/run/x run --config=it "), Some("/srv/it".into()));
        assert_eq!(file("ctguard run --set dry-run=on "), None);
        assert_eq!(file("other program "), None);
        assert_eq!(file(""), None);
    }

    /// Fails when a command takes another daemon's files for the default ones without a word.
    #[test]
    fn of_a_daemon_of_another_release_nothing_is_known_and_one_line_says_so() {
        assert!(told("ctguard run --state /srv/kept --of-another-release ").is_none());
        let line = unknown(4711);
        assert!(!line.contains('\n') && line.contains("4711") && line.contains(DEFAULT_STATE));
    }

    #[test]
    fn the_state_directory_of_a_daemon_is_known_from_its_command_line() {
        let state = |words: &str| told(words).map(|told| told.absolute(&told.args.state));
        assert_eq!(state("ctguard run -i wan0 --state kept "), Some("/srv/kept".into()));
        assert_eq!(state("ctguard run -i wan0 "), Some(DEFAULT_STATE.into()));
        assert_eq!(state("ctguard status "), None);
    }
}
