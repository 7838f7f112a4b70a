//! Calls of kernel functions. A function is called by the number of its BTF type, which only the
//! running kernel knows. So the program calls numbers that no helper will ever have, and the loader
//! rewrites these instructions. It does the same with a helper that older kernels lack.

/// Stands for `bpf_xdp_ct_lookup` (`net/netfilter/nf_conntrack_bpf.c`).
pub const LOOKUP: i32 = 0x7fff_f001;
/// Stands for `bpf_ct_release`.
pub const RELEASE: i32 = 0x7fff_f002;

/// Stands for the helper `bpf_xdp_get_buff_len` (Linux 5.18). If it returns 0, the program does not try
/// to read headers that lie outside a frame's first buffer, and calls no other helper that reads them.
pub const FRAME_BYTES: i32 = 0x7fff_f003;
/// `BPF_FUNC_xdp_get_buff_len`.
const GET_BUFFER_LENGTH: u8 = 188;

/// `BPF_JMP | BPF_CALL` (`include/uapi/linux/bpf.h`).
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`.
const KERNEL_FUNCTION: u8 = 2;
/// `BPF_ALU64 | BPF_MOV | BPF_K`; followed by zeros it is r0 = 0.
const MOVE: u8 = 0xb7;

/// One instruction: opcode, registers, offset, immediate.
pub type Instruction = [u8; 8];

/// How to call a kernel function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Number of its BTF type.
    pub btf_id: i32,
    /// Position of its module's BTF in the load's `fd_array`; 0 for the kernel itself.
    pub fd_index: i16,
}

/// Both functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locations {
    /// `bpf_xdp_ct_lookup`.
    pub lookup: Location,
    /// `bpf_ct_release`.
    pub release: Location,
}

/// The call of the function in place of a marked instruction; `None` for any other. If there are no
/// functions, an instruction that finds nothing. `fragments` is whether frames may have headers outside
/// their first buffer, which the program then reads.
pub const fn rewrite(
    instruction: Instruction,
    functions: Option<&Locations>,
    fragments: bool,
) -> Option<Instruction> {
    let [CALL, 0, 0, 0, immediate @ ..] = instruction else { return None };
    let mark = i32::from_le_bytes(immediate);
    if mark == FRAME_BYTES {
        let call = [CALL, 0, 0, 0, GET_BUFFER_LENGTH, 0, 0, 0];
        return Some(if fragments { call } else { [MOVE, 0, 0, 0, 0, 0, 0, 0] });
    }
    if mark != LOOKUP && mark != RELEASE {
        return None;
    }
    let Some(functions) = functions else { return Some([MOVE, 0, 0, 0, 0, 0, 0, 0]) };
    let location = if mark == LOOKUP { functions.lookup } else { functions.release };
    let [offset_low, offset_high] = location.fd_index.to_le_bytes();
    let [a, b, c, d] = location.btf_id.to_le_bytes();
    Some([CALL, KERNEL_FUNCTION << 4, offset_low, offset_high, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: Locations = Locations {
        lookup: Location { btf_id: 0x1234, fd_index: 1 },
        release: Location { btf_id: 0x5678, fd_index: 1 },
    };

    #[test]
    fn a_marked_call_becomes_the_call_of_the_function() {
        let marked = [0x85, 0, 0, 0, 0x01, 0xf0, 0xff, 0x7f];
        let called = [0x85, 0x20, 1, 0, 0x34, 0x12, 0, 0];
        assert_eq!(rewrite(marked, Some(&FUNCTIONS), true), Some(called));
    }

    #[test]
    fn without_functions_a_marked_call_finds_nothing() {
        let marked = [0x85, 0, 0, 0, 0x02, 0xf0, 0xff, 0x7f];
        assert_eq!(rewrite(marked, None, true), Some([0xb7, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn headers_outside_the_first_buffer_are_read_where_there_can_be_any() {
        let marked = [0x85, 0, 0, 0, 0x03, 0xf0, 0xff, 0x7f];
        assert_eq!(rewrite(marked, None, true), Some([0x85, 0, 0, 0, 188, 0, 0, 0]));
        assert_eq!(rewrite(marked, Some(&FUNCTIONS), false), Some([0xb7, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn other_instructions_stay() {
        for other in [[0x85, 0, 0, 0, 1, 0, 0, 0], [0x85, 0x10, 0, 0, 0x01, 0xf0, 0xff, 0x7f]] {
            assert_eq!(rewrite(other, Some(&FUNCTIONS), true), None);
        }
    }
}
