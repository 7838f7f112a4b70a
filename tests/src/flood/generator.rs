//! The flood generator in the kernel: `lab_flood`, and `lab_crowd` that answers for its sources.
//!
//! A run of more than one frame enters its program into the kernel's XDP dispatcher and takes it
//! out again, which waits for all CPUs: 30 ms a run. A program that is attached to some device is
//! in the dispatcher already, so the generator's is attached to a link that carries nothing.

use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, DevMap, MapData, PerCpuArray},
    programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode},
};

use super::interface_index;
use crate::{
    object,
    recipe::{
        self, FloodKind, Made, Route,
        layout::{Recipe, STRANDS, Strand},
    },
    router::{IDLE, SINK},
};

/// Frames sent before the receiver polls: a NAPI poll takes as many, and a veth's queue holds 256.
const BATCH: u32 = 64;
/// Frames of one run at full speed; between runs the generator looks whether it shall stop.
pub(super) const FULL_SPEED_RUN: u32 = 64 * BATCH;

/// The generator, loaded, aimed at a device.
pub(super) struct Generator {
    object: Ebpf,
    input: Vec<u8>,
}

impl Generator {
    /// Must run inside the device's namespace: the kernel looks the device up there.
    pub(super) fn load(made: &Made, device: &str) -> Result<Self> {
        let mut object = load_recipe(&made.recipe)?;
        object::program(&mut object, "lab_flood")?
            .attach(IDLE, XdpMode::Driver)
            .with_context(|| format!("cannot attach the generator to {IDLE}"))?;
        let sink = object::program(&mut object, "lab_sink")?.fd()?.try_clone()?;
        let map = object.map_mut("lab_ways").context("no map lab_ways")?;
        let mut ways = DevMap::try_from(map)?;
        ways.set(0, interface_index(device)?, None, 0)?;
        // The last one takes the frame itself, and each before it a copy.
        ways.set(1, interface_index(SINK)?, Some(&sink), 0)?;
        Ok(Self { object, input: vec![0; made.frame_length] })
    }

    /// Lets the sources answer what arrives on the device.
    pub(super) fn answer_on(&mut self, device: &str) -> Result<()> {
        object::classifier(&mut self.object, "lab_crowd")?
            .attach(device, TcAttachType::Ingress)
            .with_context(|| format!("cannot attach the crowd to {device}"))?;
        Ok(())
    }

    /// Makes that many frames and sends them.
    pub(super) fn burst(&self, frames: u32) -> Result<()> {
        if frames == 0 {
            return Ok(());
        }
        let program = self.object.program("lab_flood").context("no program lab_flood")?;
        let program: &Xdp = program.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&self.input),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        match program.test_run(options) {
            Ok(_) => Ok(()),
            // A signal ends the run; whoever handles it stops the flood.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == ErrorKind::Interrupted =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("the kernel does not run the flood"),
        }
    }

    /// Makes the next frames those that were sent before, up to this number of them.
    pub(super) fn send_again(&mut self, up_to: u64) -> Result<()> {
        send_again(&mut self.object, up_to)
    }

    /// Makes the next frames those that close connections, up to this number of them.
    pub(super) fn close(&mut self, up_to: u64) -> Result<()> {
        set(&mut self.object, "lab_close_due", up_to)
    }

    /// Goes on with other strands.
    pub(super) fn take_strands(&mut self, strands: &[Strand; STRANDS]) -> Result<()> {
        let map = self.object.map_mut("lab_recipe").context("no map lab_recipe")?;
        let mut map = Array::<_, Recipe>::try_from(map)?;
        let recipe = map.get(&0, 0)?;
        if recipe.strands != *strands {
            map.set(0, Recipe { strands: *strands, ..recipe }, 0)?;
        }
        Ok(())
    }

    /// Frames made.
    pub(super) fn offered(&self) -> Result<u64> {
        let map = self.object.map("lab_offered").context("no map lab_offered")?;
        let per_cpu = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(per_cpu.iter().sum())
    }

    /// SYN-ACKs that each of the first `members` of the crowd saw.
    pub(super) fn accepted(&self, members: u32) -> Result<Vec<u64>> {
        let map = self.numbers("lab_accepted")?;
        (0..members).map(|member| Ok(map.get(&member, 0)?)).collect()
    }

    /// Connections closed by both sides.
    pub(super) fn completed(&self) -> Result<u64> {
        Ok(self.numbers("lab_completed")?.get(&0, 0)?)
    }

    /// SYNs that were challenged.
    pub(super) fn challenged(&self) -> Result<u64> {
        Ok(self.numbers("lab_challenged")?.get(&0, 0)?)
    }

    fn numbers(&self, name: &str) -> Result<Array<&MapData, u64>> {
        let map = self.object.map(name).with_context(|| format!("no map {name}"))?;
        Ok(Array::try_from(map)?)
    }
}

/// A generator that sends nothing.
pub struct Sampler {
    object: Ebpf,
    input: Vec<u8>,
}

impl Sampler {
    /// Loads the generator of a flood.
    pub fn load(kind: FloodKind, route: Route) -> Result<Self> {
        let made = recipe::recipe(kind, route)?;
        let mut object = load_recipe(&made.recipe)?;
        object::program(&mut object, "lab_flood")?;
        object::classifier(&mut object, "lab_crowd")?;
        Ok(Self { object, input: vec![0; made.frame_length] })
    }

    /// The next frames.
    pub fn frames(&mut self, frames: usize) -> Result<Vec<Vec<u8>>> {
        let program = self.object.program("lab_flood").context("no program lab_flood")?;
        let program: &Xdp = program.try_into()?;
        let sampled = (0..frames).map(|_| {
            let mut frame = vec![0; self.input.len()];
            let options = TestRunOptions {
                data_in: Some(&self.input),
                data_out: Some(&mut frame),
                ..TestRunOptions::default()
            };
            program.test_run(options).context("the kernel does not run the generator")?;
            Ok(frame)
        });
        sampled.collect()
    }

    /// Makes the next frames those that were sent before, up to this number of them.
    pub fn send_again(&mut self, up_to: u64) -> Result<()> {
        send_again(&mut self.object, up_to)
    }

    /// What the flood's sources answer to a frame, if it is for one of them and needs an answer.
    pub fn answer(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>> {
        const TC_ACT_REDIRECT: u32 = 7;
        let program = self.object.program("lab_crowd").context("no program lab_crowd")?;
        let program: &SchedClassifier = program.try_into()?;
        let mut answer = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut answer),
            ..TestRunOptions::default()
        };
        let ran = program.test_run(options).context("the kernel does not run the crowd")?;
        Ok((ran.return_value == TC_ACT_REDIRECT).then_some(answer))
    }
}

fn load_recipe(recipe: &Recipe) -> Result<Ebpf> {
    let mut object = object::load()?;
    let map = object.map_mut("lab_recipe").context("no map lab_recipe")?;
    Array::<_, Recipe>::try_from(map)?.set(0, *recipe, 0)?;
    Ok(object)
}

fn send_again(object: &mut Ebpf, up_to: u64) -> Result<()> {
    set(object, "lab_due", up_to)
}

fn set(object: &mut Ebpf, name: &str, number: u64) -> Result<()> {
    let map = object.map_mut(name).with_context(|| format!("no map {name}"))?;
    Ok(Array::<_, u64>::try_from(map)?.set(0, number, 0)?)
}
