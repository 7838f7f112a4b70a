//! Attaches the programs to an interface: one pinned link for each direction, updated in place.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::programs::loaded_programs;
use ctguard_layout::{Interface, programs};
use log::{info, warn};
use thiserror::Error;

use super::{
    LoadError, Pins, Programs,
    egress::{self, EgressError, FormerEgress},
    former_link::FormerLink,
    pins::remove_if_there,
    syscall,
};
use crate::{
    lock,
    net::{self, Link},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The driver runs the program.
    Native,
    /// The network stack runs it, after it allocated a buffer.
    Generic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// Native if the driver supports it; generic on a veth, see [`Mode::loses_answers`].
    #[default]
    Auto,
    Native,
    Generic,
}

#[derive(Debug)]
pub struct Attachment {
    pub mode: Mode,
    /// False if the program was replaced in a link that was there.
    pub fresh: bool,
    /// In generic mode: why the driver does not run the program.
    pub native_refusal: Option<io::Error>,
}

#[derive(Debug, Error)]
pub enum AttachError {
    #[error(
        "{name} is guarded already by {}{}",
        pins.as_ref().map_or("another ctguard".to_owned(), |pins| {
            format!("the ctguard at {}", pins.path().display())
        }),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    OtherGuard { name: String, pins: Option<Pins>, pid: Option<u32> },
    #[error(
        "{name} runs the XDP program {program} (id {id}), which is not ctguard's; ctguard never \
         replaces another's program, detach it first"
    )]
    Foreign { name: String, program: String, id: u32 },
    #[error(
        "{above}, a device above {name}, has an XDP program (id {program}), and the kernel then takes \
         none on {name}; remove that one, or guard {above}"
    )]
    Above { name: String, above: String, program: u32 },
    #[error(
        "the driver of {name} (MTU {mtu}) does not run the program: {source}; use --mode generic"
    )]
    NoNative { name: String, mtu: u32, source: io::Error },
    #[error("not permitted to attach programs to {name}; be root, or have CAP_NET_ADMIN")]
    NotPermitted { name: String },
    #[error("cannot attach to {name}")]
    Link { name: String, source: io::Error },
    #[error("cannot pin {}", path.display())]
    Pin { path: PathBuf, source: io::Error },
    #[error("cannot watch what leaves {name}")]
    Egress { name: String, source: EgressError },
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl AttachError {
    /// Whether other devices may take the programs all the same.
    pub const fn is_of_device(&self) -> bool {
        match self {
            Self::OtherGuard { .. }
            | Self::Foreign { .. }
            | Self::Above { .. }
            | Self::NoNative { .. }
            | Self::Link { .. }
            | Self::Egress { .. } => true,
            Self::NotPermitted { .. } | Self::Pin { .. } | Self::Load(_) => false,
        }
    }
}

/// Whose program is on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// `pins` is unknown if its lock is gone; `pid` is that of its daemon, if one runs.
    Guard {
        pins: Option<Pins>,
        pid: Option<u32>,
    },
    Foreign {
        program: Option<String>,
    },
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// As in the `interfaces` map.
    pub const fn number(self) -> u32 {
        match self {
            Self::Native => Interface::NATIVE,
            Self::Generic => Interface::GENERIC,
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => syscall::XDP_NATIVE,
            Self::Generic => syscall::XDP_GENERIC,
        }
    }

    /// Whether what the program sends back may never arrive: a veth hands native `XDP_TX` to its peer,
    /// which takes it only while it has a program too (`veth_xdp_flush`, drivers/net/veth.c). A
    /// container's end of the pair has none, and nobody else sees whether it has.
    pub fn loses_answers(self, link: &Link) -> bool {
        self == Self::Native && link.is_a("veth")
    }
}

impl ModeChoice {
    const fn allows(self, mode: Mode) -> bool {
        matches!(
            (self, mode),
            (Self::Auto, _) | (Self::Native, Mode::Native) | (Self::Generic, Mode::Generic)
        )
    }
}

/// Attaches the programs to `link`, or replaces those that an earlier daemon attached.
///
/// The egress program comes first, so that flows from inside are known before any packet is judged.
pub fn attach(
    pins: &Pins,
    programs: &mut Programs,
    link: &Link,
    choice: ModeChoice,
    egress_by_filter: bool,
) -> Result<Attachment, AttachError> {
    let fresh_egress =
        egress::attach(pins, programs.egress()?, link, egress_by_filter).map_err(|source| {
            match egress::is_of_another(pins, link) {
                // Whose filter it is, too.
                Ok(true) => occupied_now(link),
                Ok(false) | Err(_) => AttachError::Egress { name: link.name.clone(), source },
            }
        })?;
    let attached = ingress(pins, programs, link, choice);
    if attached.is_err() && fresh_egress {
        // The first error is the one to report.
        let _ = egress::detach(pins, link.index);
    }
    attached
}

impl Attachment {
    pub fn detach(pins: &Pins, ifindex: u32) -> io::Result<()> {
        remove_if_there(&pins.xdp(ifindex))?;
        egress::detach(pins, ifindex)
    }
}

/// Whether `ifindex` still runs both programs.
pub fn is_attached(pins: &Pins, ifindex: u32) -> bool {
    pins.has_xdp(ifindex).unwrap_or(false) && egress::is_attached(pins, ifindex)
}

/// Whether the interface is gone to which the programs were attached, though another may have its index.
pub fn is_of_gone(pins: &Pins, ifindex: u32) -> bool {
    matches!(pins.xdp_link(ifindex), Ok(Some((_, info))) if info.ifindex != ifindex)
}

/// Names pins by the index that their interface has now: one that was in another network namespace while no
/// daemon ran took its program along, and may have come back with another index.
pub fn name_moved(pins: &Pins, links: &[Link]) -> io::Result<()> {
    let attached = pins.attached()?;
    for link in links {
        let Some(there) = link.xdp else { continue };
        let is_of_link = |found: &Option<(OwnedFd, syscall::LinkInfo)>| {
            found.as_ref().is_some_and(|(_, info)| info.ifindex == link.index)
        };
        for &former in attached.iter().filter(|&&former| former != link.index) {
            let xdp = pins.xdp_link(former)?;
            let is_it = xdp.as_ref().is_some_and(|(_, info)| info.program == there.program);
            if !is_it || !is_of_link(&xdp) {
                continue;
            }
            fs::rename(pins.xdp(former), pins.xdp(link.index))?;
            if is_of_link(&pins.tcx_link(former)?) {
                fs::rename(pins.tcx(former), pins.tcx(link.index))?;
            }
        }
    }
    Ok(())
}

/// What an interface runs before a start changes it.
pub struct FormerPrograms {
    pins: Pins,
    link: Link,
    xdp: Option<FormerLink>,
    egress: FormerEgress,
}

impl FormerPrograms {
    pub fn of(pins: &Pins, link: &Link) -> io::Result<Self> {
        let xdp = FormerLink::of(pins.xdp_link(link.index)?, link.index)?;
        let egress = FormerEgress::of(pins, link.index)?;
        Ok(Self { pins: pins.clone(), link: link.clone(), xdp, egress })
    }

    /// Whether it runs any of them.
    pub fn is_there(&self) -> bool {
        self.xdp.is_some() || !matches!(self.egress, FormerEgress::Nothing)
    }

    /// Puts the same programs back, or removes those that were not there.
    pub fn restore(self) -> Result<(), EgressError> {
        match &self.xdp {
            Some(former) => former.restore()?,
            None => remove_if_there(&self.pins.xdp(self.link.index))?,
        }
        self.egress.restore(&self.pins, &self.link)
    }
}

fn ingress(
    pins: &Pins,
    programs: &Programs,
    link: &Link,
    choice: ModeChoice,
) -> Result<Attachment, AttachError> {
    let failed = |source| link_error(link, source);
    if let Some((fd, info)) = pins.xdp_link(link.index).map_err(failed)? {
        if info.ifindex == link.index {
            return update(fd.as_fd(), programs, link, choice);
        }
        info!("{}: its former link is gone; attaching anew", link.name);
        let path = pins.xdp(link.index);
        remove_if_there(&path).map_err(|source| AttachError::Pin { path, source })?;
    }
    // Not by `link.xdp`, which was read before the programs were loaded: the kernel takes a former guard's
    // program off some time after its link is gone.
    create(pins, programs, link, choice)
}

fn update(
    fd: BorrowedFd<'_>,
    programs: &Programs,
    link: &Link,
    choice: ModeChoice,
) -> Result<Attachment, AttachError> {
    let native = link.xdp.is_none_or(|attached| attached.native);
    let mode = if native { Mode::Native } else { Mode::Generic };
    // The kernel runs one program in either mode only (`dev_xdp_attach`, `net/core/dev.c`): a change would
    // open the interface, and if the driver refuses native mode, again at each restart.
    if !choice.allows(mode) {
        warn!(
            "{} goes on in {} mode; to change it: ctguard detach --stop, then start again",
            link.name,
            mode.name()
        );
    }
    if syscall::update_link(fd, programs.ingress()).is_err() {
        syscall::update_link(fd, programs.plain_ingress()?)
            .map_err(|source| link_error(link, source))?;
    }
    Ok(Attachment { mode, fresh: false, native_refusal: None })
}

fn create(
    pins: &Pins,
    programs: &Programs,
    link: &Link,
    choice: ModeChoice,
) -> Result<Attachment, AttachError> {
    let mut native_refusal = None;
    for mode in [Mode::Native, Mode::Generic] {
        let is_avoided = choice == ModeChoice::Auto && mode.loses_answers(link);
        if is_avoided || !choice.allows(mode) {
            continue;
        }
        match create_in(mode, programs, link) {
            Ok(fd) => {
                let path = pins.xdp(link.index);
                syscall::pin(fd.as_fd(), &path)
                    .map_err(|source| AttachError::Pin { path, source })?;
                return Ok(Attachment { mode, fresh: true, native_refusal });
            }
            Err(AttachError::Link { source, .. }) if mode == Mode::Native => {
                native_refusal = Some(source);
            }
            Err(error) => return Err(error),
        }
    }
    Err(AttachError::NoNative {
        name: link.name.clone(),
        mtu: link.mtu,
        source: native_refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into()),
    })
}

/// Tries the program for frames in fragments first: drivers with a large MTU insist on it, others
/// refuse it.
fn create_in(mode: Mode, programs: &Programs, link: &Link) -> Result<OwnedFd, AttachError> {
    let attach = |program| {
        let attached = syscall::attach_xdp(program, link.index, mode.flags());
        attached.map_err(|source| link_error(link, source))
    };
    match attach(programs.ingress()) {
        Err(AttachError::Link { .. }) => attach(programs.plain_ingress()?),
        done => done,
    }
}

fn link_error(link: &Link, source: io::Error) -> AttachError {
    let name = link.name.clone();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { name },
        Some(libc::EBUSY | libc::EEXIST) => occupied_now(link),
        _ => AttachError::Link { name, source },
    }
}

/// Finds who is there, or above.
fn occupied_now(link: &Link) -> AttachError {
    let name = link.name.clone();
    let links = net::links().unwrap_or_default();
    let above = net::above_with_program(&links, link);
    if let Some((above, attached)) = above.and_then(|above| Some((above, above.xdp?))) {
        return AttachError::Above { name, above: above.name.clone(), program: attached.program };
    }
    let now = links.iter().find(|now| now.index == link.index).and_then(|now| now.xdp);
    occupied(link, now.map_or(0, |attached| attached.program))
}

fn occupied(link: &Link, id: u32) -> AttachError {
    let name = link.name.clone();
    match Occupant::of(link.index, id) {
        Occupant::Guard { pins, pid } => AttachError::OtherGuard { name, pins, pid },
        Occupant::Foreign { program } => {
            let program = program.unwrap_or_else(|| "of another".to_owned());
            AttachError::Foreign { name, program, id }
        }
    }
}

impl Occupant {
    pub fn of(ifindex: u32, id: u32) -> Self {
        let program = loaded_programs().flatten().find(|program| program.id() == id);
        let program = program.and_then(|program| program.name_as_str().map(ToOwned::to_owned));
        if program.as_deref() == Some(programs::INGRESS) {
            let pins = lock::pinned_guards().into_iter().map(Pins::at).find(
                |pins| matches!(pins.xdp_link(ifindex), Ok(Some((_, info))) if info.program == id),
            );
            let daemon = pins.as_ref().and_then(|pins| lock::daemon_of(pins.path()));
            return Self::Guard { pins, pid: daemon.and_then(|daemon| daemon.pid) };
        }
        Self::Foreign { program }
    }
}
