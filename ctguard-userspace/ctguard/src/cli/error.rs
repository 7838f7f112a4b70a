//! Every way to fail, as one line and an exit code.

use std::{error::Error, io, iter, net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use thiserror::Error;

use super::exit_code::Code;
use crate::{
    config::{ConfigError, Origin},
    daemon::StartError,
    files::FileError,
    sentence::sentence,
};
use ctguard_audit::{host::Unread, tune::TuneError};
use ctguard_kernel::{
    bpf::{AttachError, ClockError, FunctionsError, LoadError},
    conntrack::TableError,
    lock::LockError,
    maps::{CaptureError, ListError, OpenError},
};
use ctguard_settings::{PrefixError, SettingError};
#[cfg(feature = "plot")]
use ctguard_simulation::PlotError;
use ctguard_simulation::SimulationError;

/// Why a command was not carried out.
#[derive(Debug, Error)]
pub(super) enum CliError {
    #[error(
        "not permitted: {}", if *.root { format!("{missing} is missing") }
        else { format!("be root (or have {missing})") }
    )]
    NotPermitted { missing: &'static str, root: bool },
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("nothing was changed: {0}")]
    ReloadRefused(String),
    #[error("the daemon has not answered for {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("{of} {text}: {problem} (write 10m or 2h 30m)")]
    Span { of: &'static str, text: String, problem: String },
    #[error("--apply and --revert exclude each other, except with --watch")]
    ApplyAndRevert,
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("a terminal cannot show a capture; write it into a file: -w FILE (or: | tshark -r -)")]
    CaptureOnTerminal,
    #[error("{name} is not guarded; guarded are: {guarded}")]
    NotGuarded { name: String, guarded: String },
    #[error("the guard was removed or replaced meanwhile; to capture at the new one, start again")]
    GuardGone,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    #[error(transparent)]
    Tune(#[from] TuneError),
    #[cfg(feature = "plot")]
    #[error(transparent)]
    Plot(#[from] PlotError),
    #[error(
        "enforcing would cut you off: you are logged in from {client}, and {why}; first: {mend}"
    )]
    CutOff { client: IpAddr, why: String, mend: String },
    #[error(
        "denying {prefix} would cut you off: you are logged in from {client}; to do so all the same: \
         ctguard deny add {prefix} --force"
    )]
    DenyOperator { client: IpAddr, prefix: IpNet },
    #[error(
        "reloading would cut you off: you are logged in from {client}, and {origin} denies {prefix}; to do \
         so all the same: ctguard reload --force"
    )]
    ReloadDeniesOperator { client: IpAddr, prefix: IpNet, origin: Box<Origin> },
    #[error("{} is there and says something else; to overwrite it: --write --force", .0.display())]
    OtherFile(PathBuf),
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(
        "{0} is many sources; name one address (ctguard allow list {0} and deny list show prefixes)"
    )]
    ManySources(String),
    #[error("`{0}` is not an IPv4 or IPv6 address (write 192.0.2.7 or 2001:db8::7)")]
    NoAddress(String),
    #[error("standard input is no terminal, so nobody can be asked; to enforce the limits: --yes")]
    NobodyToAsk,
    #[error("a guard is being started; it takes some seconds, then try again")]
    Starting,
    #[error("no daemon steers the guard; start one: ctguard run -i INTERFACE")]
    NoDaemon,
    #[error("the daemon (pid {pid}) is of a release that this would end; restart it")]
    OldDaemon { pid: u32 },
    #[error("{0}; print once instead: ctguard status (or again and again: watch ctguard status)")]
    NoTerminal(&'static str),
    #[error("{}; to list them: ctguard incidents", .0.map_or("there are no incidents".to_owned(),
        |number| format!("there is no incident {number}")))]
    NoIncident(Option<u64>),
    #[error("a terminal cannot show a page; write it into a file: --output FILE")]
    PageOnTerminal,
    #[error("--interval {text}: {problem}")]
    Interval { text: String, problem: String },
    #[error("cannot {task}")]
    Io { task: &'static str, source: io::Error },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("{0:#}")]
    Daemon(anyhow::Error),
}

impl CliError {
    pub(super) fn cannot(task: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { task, source }
    }

    /// The error and its causes, in one line.
    pub(super) fn sentence(&self) -> String {
        sentence(self)
    }

    pub(super) fn code(&self) -> Code {
        let code = self.own_code();
        if code == Code::No && is_denied(self) { Code::NotPermitted } else { code }
    }

    fn own_code(&self) -> Code {
        match self {
            Self::NotPermitted { .. } => Code::NotPermitted,
            Self::Unread(unread) if unread.is_not_permitted => Code::NotPermitted,
            Self::Setting(error) => setting_code(error),
            Self::Prefix(_)
            | Self::Simulation(_)
            | Self::Span { .. }
            | Self::ApplyAndRevert
            | Self::NobodyToAsk
            | Self::ManySources(_)
            | Self::NoAddress(_)
            | Self::NoTerminal(_)
            | Self::PageOnTerminal
            | Self::CaptureOnTerminal
            | Self::NotGuarded { .. }
            | Self::Interval { .. } => Code::Usage,
            Self::Config(_) | Self::ReloadRefused(_) => Code::Configuration,
            Self::Start(error) => start_code(error),
            Self::Open(error) => open_code(error),
            Self::Capture(error) => capture_code(error),
            Self::NoDaemon | Self::Starting | Self::GuardGone => Code::NoGuard,
            Self::Tune(error) => tune_code(error),
            Self::Table(_)
            | Self::Lock(_)
            | Self::Clock(_)
            | Self::List(_)
            | Self::File(_)
            | Self::Io { .. }
            | Self::Output(_)
            | Self::NoAnswer(_)
            | Self::CutOff { .. }
            | Self::DenyOperator { .. }
            | Self::ReloadDeniesOperator { .. }
            | Self::NoIncident(_)
            | Self::OtherFile(_)
            | Self::Unread(_)
            | Self::OldDaemon { .. }
            | Self::Daemon(_) => Code::No,
            #[cfg(feature = "plot")]
            Self::Plot(_) => Code::No,
        }
    }
}

/// Whether the kernel denied something for want of rights.
fn is_denied(error: &CliError) -> bool {
    let first: &(dyn Error + 'static) = error;
    let mut causes = iter::successors(Some(first), |&error| error.source());
    causes.any(|cause| {
        let failed = cause.downcast_ref::<io::Error>();
        failed.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

fn tune_code(error: &TuneError) -> Code {
    match error {
        error if error.is_not_permitted() => Code::NotPermitted,
        TuneError::NotLoaded => Code::Kernel,
        TuneError::Plan(_) | TuneError::NothingApplied | TuneError::NotPersistedHere => Code::Usage,
        TuneError::Unread(_)
        | TuneError::File(_)
        | TuneError::Set { .. }
        | TuneError::Foreign(_)
        | TuneError::Busy(_)
        | TuneError::OtherNamespace(_)
        | TuneError::Elsewhere
        | TuneError::LowerTimeouts(_) => Code::No,
    }
}

fn setting_code(error: &SettingError) -> Code {
    match error {
        SettingError::ZoneUnknown { .. } => Code::Kernel,
        SettingError::NoAssignment { .. }
        | SettingError::Key(_)
        | SettingError::Value { .. }
        | SettingError::Interface { .. } => Code::Usage,
    }
}

fn start_code(error: &StartError) -> Code {
    match error {
        StartError::Interface(_) | StartError::NoInterface => Code::Usage,
        StartError::Config(_) => Code::Configuration,
        StartError::Setting(error) => setting_code(error),
        StartError::Open(error) => open_code(error),
        StartError::Load(error) | StartError::Attach(AttachError::Load(error)) => load_code(error),
        StartError::Attach(AttachError::NotPermitted { .. }) => Code::NotPermitted,
        StartError::Lock(_)
        | StartError::Table(_)
        | StartError::Mount(_)
        | StartError::Clock(_)
        | StartError::Slot(_)
        | StartError::Attach(_)
        | StartError::Tick(_)
        | StartError::List(_)
        | StartError::Io { .. }
        | StartError::Timeouts(_)
        | StartError::Waits(_) => Code::No,
    }
}

fn capture_code(error: &CaptureError) -> Code {
    match error {
        CaptureError::Open(error) => open_code(error),
        CaptureError::NotPermitted => Code::NotPermitted,
        CaptureError::Buffer { .. } | CaptureError::Processors { .. } => Code::No,
    }
}

fn open_code(error: &OpenError) -> Code {
    match error {
        OpenError::NoGuard { .. } => Code::NoGuard,
        OpenError::NotPermitted { .. } => Code::NotPermitted,
        OpenError::OtherLayout { .. } => Code::Layout,
        OpenError::Incomplete { .. } | OpenError::Map { .. } | OpenError::Memory { .. } => Code::No,
    }
}

fn load_code(error: &LoadError) -> Code {
    match error {
        LoadError::NotPermitted | LoadError::Functions(FunctionsError::NotPermitted) => {
            Code::NotPermitted
        }
        LoadError::Conntrack(error) => load_code(error),
        LoadError::NoBpf
        | LoadError::Object(_)
        | LoadError::Missing(_)
        | LoadError::MissingMap(_)
        | LoadError::Program { .. }
        | LoadError::Functions(_) => Code::Kernel,
        LoadError::Pin(_) => Code::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_guard_another_layout_and_no_permission_have_codes_of_their_own() {
        let path = || PathBuf::from("/run/ctguard/1");
        let code = |error: OpenError| CliError::from(error).code();
        assert_eq!(code(OpenError::NoGuard { path: path() }), Code::NoGuard);
        assert_eq!(code(OpenError::NotPermitted { path: path() }), Code::NotPermitted);
        assert_eq!(code(OpenError::OtherLayout { path: path(), found: 9 }), Code::Layout);
    }

    #[test]
    fn a_kernel_without_bpf_is_told_apart() {
        assert_eq!(CliError::from(StartError::Load(LoadError::NoBpf)).code(), Code::Kernel);
    }

    #[test]
    fn a_file_that_only_root_may_read_is_no_permission() {
        let error =
            FileError::new("read", "/run/x".as_ref())(io::ErrorKind::PermissionDenied.into());
        assert_eq!(CliError::from(error).code(), Code::NotPermitted);
        let error = FileError::new("read", "/run/x".as_ref())(io::ErrorKind::InvalidData.into());
        assert_eq!(CliError::from(error).code(), Code::No);
    }

    /// Fails when `tune`, or another command, tells somebody without rights that the answer is no.
    #[test]
    fn whatever_is_denied_is_no_permission() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let unread = || Unread::failed("/proc/net/ip_tables_names", &denied(), "CAP_DAC_OVERRIDE");
        let set =
            |source| TuneError::Set { key: "net.core.somaxconn".to_owned(), value: 1, source };
        for error in [
            CliError::Tune(unread().into()),
            CliError::Unread(unread()),
            CliError::Tune(set(denied())),
            CliError::cannot("start the main loop")(denied()),
        ] {
            assert_eq!(error.code(), Code::NotPermitted, "{}", error.sentence());
        }
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let missing = Unread::failed("/proc/meminfo", &absent(), "CAP_DAC_OVERRIDE");
        assert_eq!(CliError::Tune(missing.into()).code(), Code::No);
        assert_eq!(CliError::Tune(set(absent())).code(), Code::No);
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = CliError::cannot("remove the guard")(io::Error::other("first\nsecond"));
        assert_eq!(error.sentence(), "cannot remove the guard: first second");
    }
}
