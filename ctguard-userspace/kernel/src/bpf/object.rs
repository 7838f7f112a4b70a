//! The embedded eBPF object, whose marked calls become calls of kernel functions, or of nothing.

use aya::include_bytes_aligned;
use ctguard_layout::kernel_functions::{Locations, rewrite};

/// Built from `ctguard-ebpf` by `cargo xtask ebpf`.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../../ebpf/ctguard.bpf.o");

/// Rewrites the marked calls. Without `functions` they return 0, as if nothing were found. `fragments`
/// is whether headers in fragments are read.
///
/// Sections of instructions begin at multiples of eight bytes in the file.
pub(super) fn with_functions(
    object: &[u8],
    functions: Option<&Locations>,
    fragments: bool,
) -> Vec<u8> {
    let mut object = object.to_vec();
    let (instructions, _) = object.as_chunks_mut();
    for instruction in instructions {
        if let Some(rewritten) = rewrite(*instruction, functions, fragments) {
            *instruction = rewritten;
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use aya_obj::{Object, ProgramSection};
    use ctguard_layout::{
        kernel_functions::{FRAME_BYTES, LOOKUP, Location, RELEASE},
        maps, programs,
    };

    use super::*;

    #[test]
    fn the_ingress_program_handles_fragments() {
        assert!(handles_fragments(OBJECT));
    }

    #[test]
    fn every_pinned_map_is_in_the_object() {
        let object = Object::parse(OBJECT).unwrap();
        for name in maps::PINNED {
            assert!(object.maps.contains_key(name), "{name}");
        }
    }

    #[test]
    fn every_marked_call_becomes_the_call_of_its_function() {
        let at = |btf_id| Location { btf_id, fd_index: 1 };
        let functions = Locations { lookup: at(70_001), release: at(70_002) };
        let calls = calls(&with_functions(OBJECT, Some(&functions), true));
        assert_eq!(
            count(&calls, &[(2, 1, 70_001)]),
            count(&self::calls(OBJECT), &[(0, 0, LOOKUP)])
        );
        assert_eq!(
            count(&calls, &[(2, 1, 70_002)]),
            count(&self::calls(OBJECT), &[(0, 0, RELEASE)])
        );
        assert_eq!(count(&calls, &[(0, 0, LOOKUP), (0, 0, RELEASE)]), 0);
        assert_ne!(count(&calls, &[(2, 1, 70_001)]), 0);
    }

    #[test]
    fn without_functions_nothing_marked_is_called_and_all_else_stays() {
        let marks = [(0, 0, LOOKUP), (0, 0, RELEASE), (0, 0, FRAME_BYTES)];
        let calls = calls(&with_functions(OBJECT, None, false));
        let marked = count(&self::calls(OBJECT), &marks);
        assert_eq!(count(&calls, &marks), 0);
        assert_eq!(calls.len(), self::calls(OBJECT).len() - marked);
    }

    /// Source register, offset and immediate of each call in the object.
    fn calls(object: &[u8]) -> Vec<(u8, i16, i32)> {
        let object = Object::parse(object).unwrap();
        let instructions = object.functions.values().flat_map(|function| &function.instructions);
        instructions
            .filter(|instruction| instruction.code == 0x85)
            .map(|call| (call.src_reg(), call.off, call.imm))
            .collect()
    }

    fn count(calls: &[(u8, i16, i32)], wanted: &[(u8, i16, i32)]) -> usize {
        calls.iter().filter(|call| wanted.contains(call)).count()
    }

    fn handles_fragments(object: &[u8]) -> bool {
        let object = Object::parse(object).unwrap();
        matches!(
            object.programs.get(programs::INGRESS).unwrap().section,
            ProgramSection::Xdp { frags: true, .. }
        )
    }
}
