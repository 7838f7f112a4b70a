//! The embedded object, linked against maps that are numbers only.

use std::cell::{Cell, RefCell};

use aya_obj::generated::{BPF_PSEUDO_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE};
use ctguard_layout::{
    kernel_functions::{Location, Locations},
    maps, programs,
};

use super::*;

const FUNCTIONS: Locations = Locations {
    lookup: Location { btf_id: 70_001, fd_index: 1 },
    release: Location { btf_id: 70_002, fd_index: 1 },
};

/// `BPF_LD | BPF_DW | BPF_IMM`, of two instructions.
const LOAD_WIDE: u8 = 0x18;
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`.
const KERNEL_FUNCTION: u32 = 2;
const FIRST_FD: i32 = 1000;

/// The linked program, and the names of its object's maps, whose descriptors are their positions
/// from [`FIRST_FD`] on.
fn linked() -> (Linked, Vec<String>) {
    let names = RefCell::new(Vec::new());
    let object = with_functions(OBJECT, Some(&FUNCTIONS), true);
    let linked = link(&object, programs::INGRESS, |name| {
        let mut names = names.borrow_mut();
        let position = names.iter().position(|named| named == name).unwrap_or(names.len());
        if position == names.len() {
            names.push(name.to_owned());
        }
        Ok(FIRST_FD + i32::try_from(position).unwrap())
    });
    (linked.unwrap(), names.into_inner())
}

/// Instructions, the second halves of wide ones left out.
fn whole(linked: &Linked) -> Vec<bpf_insn> {
    let mut instructions = linked.instructions.iter();
    std::iter::from_fn(|| {
        let instruction = instructions.next()?;
        if instruction.code == LOAD_WIDE {
            instructions.next();
        }
        Some(*instruction)
    })
    .collect()
}

#[test]
fn every_reference_to_a_map_is_its_descriptor() {
    let (linked, names) = linked();
    let mut referred = Vec::new();
    for instruction in whole(&linked).iter().filter(|one| one.code == LOAD_WIDE) {
        let kind = u32::from(instruction.src_reg());
        if kind == 0 {
            continue;
        }
        assert!([BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&kind), "{kind}");
        let position = usize::try_from(instruction.imm - FIRST_FD).unwrap();
        referred.push(names.get(position).unwrap().as_str());
    }
    for name in [maps::ENVIRONMENT, maps::GRANT, maps::FLOW_CACHE, maps::KNOWN_FLOWS] {
        assert!(referred.contains(&name), "{name} of {referred:?}");
    }
}

/// Fails when the compiler makes lookups that the loader does not recognize: packets would pay for them.
#[test]
fn maps_of_one_value_are_not_looked_up() {
    let (linked, names) = linked();
    for name in direct_values::MAPS {
        let position = names.iter().position(|named| named == name).unwrap();
        let fd = FIRST_FD + i32::try_from(position).unwrap();
        let kinds: Vec<u32> = whole(&linked)
            .iter()
            .filter(|one| one.code == LOAD_WIDE && one.src_reg() != 0 && one.imm == fd)
            .map(|one| one.src_reg().into())
            .collect();
        assert!(!kinds.is_empty(), "{name}");
        assert!(kinds.iter().all(|kind| *kind == BPF_PSEUDO_MAP_VALUE), "{name}: {kinds:?}");
    }
}

#[test]
fn every_call_is_of_a_helper_a_kernel_function_or_of_the_program_itself() {
    let (linked, _) = linked();
    let mut asked = 0;
    for (at, call) in (0..).zip(&linked.instructions).filter(|(_, one)| one.code == CALL) {
        match u32::from(call.src_reg()) {
            // The kernel of 2026 has some 220 helpers.
            0 => assert!((1..1000).contains(&call.imm), "helper {}", call.imm),
            BPF_PSEUDO_CALL => {
                let target = usize::try_from(at + 1 + call.imm).unwrap();
                assert!(target < linked.instructions.len());
            }
            KERNEL_FUNCTION => {
                assert!([70_001, 70_002].contains(&call.imm) && call.off == 1);
                asked += 1;
            }
            other => panic!("a call of kind {other}"),
        }
    }
    assert!(asked >= 2, "{asked} calls of kernel functions");
}

#[test]
fn the_licence_allows_what_is_called() {
    assert_eq!(linked().0.licence.as_c_str(), c"Dual MIT/GPL");
}

#[test]
fn a_map_that_is_not_there_is_named() {
    let object = with_functions(OBJECT, Some(&FUNCTIONS), true);
    let error =
        link(&object, programs::INGRESS, |name| Err(LoadError::MissingMap(name.to_owned())));
    assert!(error.err().unwrap().to_string().contains("lacks map"));
}

/// Fails when Linux 5.15 to 5.17 get no program at all.
#[test]
fn a_kernel_that_knows_no_fragments_gets_the_program_without_them() {
    let program = |fragments| XdpProgram {
        name: programs::INGRESS,
        instructions: &[],
        licence: c"GPL",
        fragments,
        module: None,
    };
    let before_5_18 = |program: &XdpProgram<'_>| {
        let known = !program.fragments;
        known.then_some(()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
    };
    let programs = [program(true), program(true), program(false)];
    assert!(load_supported(&programs, before_5_18).is_ok());
    assert!(load_supported(&[program(false)], before_5_18).is_ok());
    for (refusal, attempts) in [(libc::EINVAL, 3), (libc::EACCES, 3), (libc::EPERM, 1)] {
        let loads = Cell::new(0);
        let refuses = |_: &XdpProgram<'_>| {
            loads.set(loads.get() + 1);
            io::Result::<()>::Err(io::Error::from_raw_os_error(refusal))
        };
        let programs = [program(true), program(true), program(false)];
        let (error, _) = load_supported(&programs, refuses).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(refusal));
        assert_eq!(loads.get(), attempts);
    }
}
