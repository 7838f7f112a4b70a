//! The embedded eBPF object, and its variants: with the calls of kernel functions in place, or with
//! none; for drivers that refuse programs for fragments.

use aya::include_bytes_aligned;
use ctguard_layout::kernel_functions::{Locations, rewrite};

/// What `cargo xtask ebpf` built from `ctguard-ebpf`.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!("../../../ebpf/ctguard.bpf.o");

/// The object whose marked calls are those of kernel functions at `functions`, or, without any,
/// find nothing.
///
/// Sections of instructions begin at multiples of eight bytes in the file, as they do in memory.
pub(super) fn with_functions(object: &[u8], functions: Option<&Locations>) -> Vec<u8> {
    let mut object = object.to_vec();
    let (instructions, _) = object.as_chunks_mut();
    for instruction in instructions {
        if let Some(rewritten) = rewrite(*instruction, functions) {
            *instruction = rewritten;
        }
    }
    object
}

/// The object with its `xdp.frags` sections renamed to `xdp`, so that aya loads their programs
/// without `BPF_F_XDP_HAS_FRAGS`.
///
/// `.BTF.ext` tells its function records by the old section name; it is renamed too, so that aya
/// leaves it out (it only serves debugging).
pub(super) fn without_fragments(object: &[u8]) -> Option<Vec<u8>> {
    let mut renamed = object.to_vec();
    let names = section_names(object)?;
    for (old, new) in [(&b"xdp.frags\0"[..], &b"xdp\0"[..]), (b".BTF.ext\0", b".BTF_ext")] {
        let table = renamed.get_mut(names.clone())?;
        let mut at = 0;
        while let Some(found) = table.get(at..)?.windows(old.len()).position(|w| w == old) {
            at += found;
            table.get_mut(at..at + new.len())?.copy_from_slice(new);
        }
    }
    Some(renamed)
}

/// Where the section names lie in a 64-bit little- or big-endian (the host's) ELF file.
fn section_names(object: &[u8]) -> Option<std::ops::Range<usize>> {
    let headers = usize::try_from(u64::from_ne_bytes(field(object, 0x28)?)).ok()?;
    let header_size = usize::from(u16::from_ne_bytes(field(object, 0x3a)?));
    let index = usize::from(u16::from_ne_bytes(field(object, 0x3e)?));
    let header = headers.checked_add(index.checked_mul(header_size)?)?;
    let start = usize::try_from(u64::from_ne_bytes(field(object, header + 0x18)?)).ok()?;
    let length = usize::try_from(u64::from_ne_bytes(field(object, header + 0x20)?)).ok()?;
    Some(start..start.checked_add(length)?)
}

fn field<const N: usize>(object: &[u8], at: usize) -> Option<[u8; N]> {
    object.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use aya_obj::{Object, ProgramSection};
    use ctguard_layout::{
        kernel_functions::{LOOKUP, Location, RELEASE},
        maps, programs,
    };

    use super::*;

    #[test]
    fn the_ingress_program_handles_fragments() {
        assert!(handles_fragments(OBJECT));
    }

    #[test]
    fn the_variant_claims_no_fragments() {
        assert!(!handles_fragments(&without_fragments(OBJECT).unwrap()));
    }

    #[test]
    fn every_pinned_map_is_in_the_object() {
        let object = Object::parse(OBJECT).unwrap();
        for name in maps::PINNED {
            assert!(object.maps.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_file_cut_short_has_no_variant() {
        assert_eq!(without_fragments(&OBJECT[..40]), None);
    }

    #[test]
    fn every_marked_call_becomes_the_call_of_its_function() {
        let at = |btf_id| Location { btf_id, fd_index: 1 };
        let functions = Locations { lookup: at(70_001), release: at(70_002) };
        let calls = calls(&with_functions(OBJECT, Some(&functions)));
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
        let calls = calls(&with_functions(OBJECT, None));
        let marked = count(&self::calls(OBJECT), &[(0, 0, LOOKUP), (0, 0, RELEASE)]);
        assert_eq!(count(&calls, &[(0, 0, LOOKUP), (0, 0, RELEASE)]), 0);
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
