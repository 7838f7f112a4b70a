//! The lab's eBPF object: the flood generator, and programs to measure against.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!("../ebpf/lab.bpf.o");

/// Programs of the lab that can be attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Drops everything.
    Floor,
    /// Lets everything pass.
    Pass,
    /// Drops what goes to spoofed IPv4 sources.
    Nowhere,
    /// Drops what goes at this port, which in the lab is the flood and nothing else.
    DropPort(u16),
    /// Challenges each connection of a crowd once.
    Challenge,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "lab_floor",
            Self::Pass => "lab_pass",
            Self::Nowhere => "lab_nowhere",
            Self::DropPort(_) => "lab_drop_flood",
            Self::Challenge => "lab_challenger",
        }
    }
}

/// A program on a device, taken off when dropped.
#[derive(Debug)]
pub struct Attached {
    _object: Ebpf,
}

/// Loads the object; its programs are loaded one by one, by whoever needs them.
pub fn load() -> Result<Ebpf> {
    EbpfLoader::new().load(OBJECT).context("cannot load the lab's eBPF object")
}

/// The program `name` of the object, loaded into the kernel.
pub fn program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    let program = object.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().with_context(|| format!("cannot load the program {name}"))?;
    Ok(program)
}

/// The traffic control program `name` of the object, loaded into the kernel.
pub fn classifier<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut SchedClassifier> {
    let program = object.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load().with_context(|| format!("cannot load the program {name}"))?;
    Ok(program)
}

/// Serves a crowd's connections on a device of this thread's namespace: each is accepted, closed
/// at once, and remembered by nobody.
pub fn serve_crowd(device: &str) -> Result<Attached> {
    let mut object = load()?;
    classifier(&mut object, "lab_server")?
        .attach(device, TcAttachType::Ingress)
        .with_context(|| format!("cannot attach the crowd's server to {device}"))?;
    Ok(Attached { _object: object })
}

/// Attaches a program, in native mode, to a device of this thread's namespace.
pub fn attach(program: Program, device: &str) -> Result<Attached> {
    attach_in(XdpMode::Driver, program, device)
}

/// Attaches a program in a mode of choice.
pub fn attach_in(mode: XdpMode, program: Program, device: &str) -> Result<Attached> {
    let mut object = load()?;
    if let Program::DropPort(port) = program {
        let map = object.map_mut("lab_flood_port").context("no map lab_flood_port")?;
        Array::<_, u32>::try_from(map)?.set(0, u32::from(port.to_be()), 0)?;
    }
    let name = program.name();
    self::program(&mut object, name)?
        .attach(device, mode)
        .with_context(|| format!("cannot attach {name} to {device}"))?;
    Ok(Attached { _object: object })
}
