//! Lets the XDP program read maps of one value without looking them up.
//!
//! The kernel puts the address of such a value into an instruction when it loads the program
//! (`BPF_PSEUDO_MAP_VALUE`, Linux 5.2), and knows that it is never null. aya makes such references
//! only to sections of data, so this rewrites the lookups of the linked program.

use std::collections::HashSet;

use aya_obj::generated::{BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_insn};
use ctguard_layout::maps;

/// Maps of one value that the program looks up at index 0.
pub(super) const MAPS: [&str; 4] = [maps::POLICY, maps::ENVIRONMENT, maps::GRANT, maps::LIMITS];

/// `BPF_LD | BPF_DW | BPF_IMM`, of two instructions.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_JMP | BPF_EXIT`.
const EXIT: u8 = 0x95;
/// `BPF_JMP | BPF_JA`; with an offset of 0 the kernel removes it (`opt_remove_nops`).
const JUMP: u8 = 0x05;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_ADD | BPF_K`.
const ADD: u8 = 0x07;
/// Classes `BPF_JMP` and `BPF_JMP32`, the low three bits of a code.
const JUMPS: [u8; 2] = [0x05, 0x06];
const CLASS: u8 = 0x07;
/// `BPF_FUNC_map_lookup_elem`.
const LOOKUP: i32 = 1;
const FRAME_POINTER: u8 = 10;
/// [`BPF_PSEUDO_MAP_VALUE`] as a register's number.
const VALUE: u8 = 2;
const _: () = assert!(VALUE as u32 == BPF_PSEUDO_MAP_VALUE);

/// Replaces the lookups of maps whose descriptors are `single`.
pub(super) fn replace_lookups(instructions: &mut [bpf_insn], single: &HashSet<i32>) {
    let targets = jump_targets(instructions);
    for at in 0..instructions.len().saturating_sub(2) {
        let is_whole = !targets.contains(&(at + 1)) && !targets.contains(&(at + 2));
        let [before @ .., load, offset, call] = &mut instructions[..at + 3] else { continue };
        if !is_whole || !is_lookup(*load, *call) || !single.contains(&load.imm) {
            continue;
        }
        load.set_dst_reg(0);
        load.set_src_reg(VALUE);
        offset.imm = 0;
        clear(call);
        // The call would have overwritten r2.
        if let [.., pointer, key] = before
            && is_pointer_to_key(*pointer, *key)
        {
            clear(pointer);
            clear(key);
        }
    }
}

/// r1 = the map; call of the helper.
fn is_lookup(load: bpf_insn, call: bpf_insn) -> bool {
    load.code == LOAD_WIDE
        && load.dst_reg() == 1
        && u32::from(load.src_reg()) == BPF_PSEUDO_MAP_FD
        && call.code == CALL
        && call.src_reg() == 0
        && call.imm == LOOKUP
}

/// r2 = the stack; r2 += where the key lies in it.
fn is_pointer_to_key(pointer: bpf_insn, key: bpf_insn) -> bool {
    (pointer.code, pointer.dst_reg(), pointer.src_reg()) == (MOVE, 2, FRAME_POINTER)
        && (key.code, key.dst_reg()) == (ADD, 2)
}

fn clear(instruction: &mut bpf_insn) {
    instruction.code = JUMP;
    instruction.set_dst_reg(0);
    instruction.set_src_reg(0);
    instruction.off = 0;
    instruction.imm = 0;
}

/// Positions that some instruction jumps to.
fn jump_targets(instructions: &[bpf_insn]) -> HashSet<usize> {
    let jumps = instructions.iter().enumerate().filter(|(_, one)| {
        JUMPS.contains(&(one.code & CLASS)) && one.code != CALL && one.code != EXIT
    });
    // The long jump of `BPF_JMP32` has its distance in the immediate.
    let distance = |one: &bpf_insn| {
        if one.code == 0x06 { i64::from(one.imm) } else { i64::from(one.off) }
    };
    jumps
        .filter_map(|(at, one)| at.checked_add_signed(isize::try_from(distance(one) + 1).ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FD: i32 = 7;

    fn instruction(code: u8, (to, from): (u8, u8), off: i16, imm: i32) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(to, from);
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm }
    }

    /// A jump, then the lookup of the map that `fd` describes.
    fn lookup(jump: i16, fd: i32) -> [bpf_insn; 7] {
        [
            instruction(JUMP, (0, 0), jump, 0),
            instruction(MOVE, (2, 10), 0, 0),
            instruction(ADD, (2, 0), 0, -8),
            instruction(LOAD_WIDE, (1, 1), 0, fd),
            instruction(0, (0, 0), 0, 0),
            instruction(CALL, (0, 0), 0, LOOKUP),
            instruction(EXIT, (0, 0), 0, 0),
        ]
    }

    fn codes(mut instructions: [bpf_insn; 7]) -> [u8; 7] {
        replace_lookups(&mut instructions, &HashSet::from([FD]));
        instructions.map(|one| one.code)
    }

    #[test]
    fn a_lookup_becomes_the_values_address_and_nothing() {
        let mut instructions = lookup(2, FD);
        replace_lookups(&mut instructions, &HashSet::from([FD]));
        let load = &instructions[3];
        assert_eq!((load.dst_reg(), u32::from(load.src_reg())), (0, BPF_PSEUDO_MAP_VALUE));
        assert_eq!((load.imm, instructions[4].imm), (FD, 0));
        let codes = instructions.map(|one| one.code);
        assert_eq!(codes, [JUMP, JUMP, JUMP, LOAD_WIDE, 0, JUMP, EXIT]);
    }

    /// Fails when another map's lookup, which shares the call, gets this map's value.
    #[test]
    fn a_call_that_other_code_jumps_to_stays() {
        assert_eq!(codes(lookup(4, FD)), lookup(4, FD).map(|one| one.code));
    }

    #[test]
    fn lookups_of_other_maps_stay() {
        assert_eq!(codes(lookup(0, FD + 1)), lookup(0, FD + 1).map(|one| one.code));
    }
}
