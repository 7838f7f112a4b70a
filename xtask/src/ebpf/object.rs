//! eBPF objects as ELF files: what is kept of them, and whether two are the same program.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use object::build::elf::{Builder, Section, SectionData};
use object::elf;
use object::{Object as _, ObjectSection as _};

/// What a loader needs beside maps and programs: types, and where they are in the code.
const NEEDED: [&str; 3] = [".BTF", ".BTF.ext", "license"];

/// The object without what only a debugger reads.
pub(super) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("not an ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        // Loaders find what BTF refers to by its own names and offsets.
        section.delete = name.starts_with(".debug_")
            || name.starts_with(".rel.debug_")
            || name.starts_with(".rel.BTF");
    }
    builder.delete_orphans();
    // LLVM keeps names of sections and of symbols in one table, the builder in two.
    add_section_names(&mut builder);
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the ELF file")?;

    let sections = sections(&stripped)?;
    if let Some(missing) = NEEDED.iter().find(|needed| !sections.contains_key(**needed)) {
        bail!("section {missing} is missing");
    }
    Ok(stripped)
}

fn add_section_names(builder: &mut Builder<'_>) {
    let is_there = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if builder.sections.iter().any(is_there) {
        return;
    }
    let section = builder.sections.add();
    section.name = ".shstrtab".into();
    section.sh_type = elf::SHT_STRTAB;
    section.sh_addralign = 1;
    section.data = SectionData::SectionString;
}

/// The first section of programs, maps or data that isn't the same in both objects.
pub(super) fn first_difference(one: &[u8], other: &[u8]) -> Result<Option<String>> {
    let (one, other) = (sections(one)?, sections(other)?);
    let differs = |name: &&String| one.get(*name) != other.get(*name);
    Ok(one.keys().chain(other.keys()).filter(|name| is_program(name)).find(differs).cloned())
}

/// Types and symbol names may differ without the program doing so.
fn is_program(section: &str) -> bool {
    let target = section.strip_prefix(".rel").unwrap_or(section);
    !target.starts_with(".BTF") && !matches!(target, "" | ".symtab" | ".strtab" | ".shstrtab")
}

fn sections(object: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let file = object::File::parse(object).context("not an ELF file")?;
    let read = |section: object::Section<'_, '_>| {
        Ok((section.name()?.to_owned(), section.data()?.to_vec()))
    };
    let sections: object::Result<_> = file.sections().map(read).collect();
    sections.context("a damaged ELF file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(sections: &[(&'static str, &'static [u8])]) -> Vec<u8> {
        let mut builder = Builder::new(object::Endianness::Little, true);
        builder.header.e_type = elf::ET_REL;
        builder.header.e_machine = elf::EM_BPF;
        for (name, data) in sections {
            let section = builder.sections.add();
            section.name = (*name).into();
            section.sh_type = elf::SHT_PROGBITS;
            section.sh_addralign = 1;
            section.data = SectionData::Data((*data).into());
        }
        add_section_names(&mut builder);
        builder.set_section_sizes();
        let mut written = Vec::new();
        builder.write(&mut written).unwrap();
        written
    }

    #[test]
    fn stripping_keeps_programs_and_types_and_drops_debug_information() {
        let full = [
            ("xdp", b"code".as_slice()),
            ("license", b"GPL\0"),
            (".BTF", b"t"),
            (".BTF.ext", b"e"),
            (".debug_info", b"d"),
        ];
        let stripped = sections(&strip(&object(&full)).unwrap()).unwrap();
        assert_eq!(stripped["xdp"], b"code");
        assert_eq!(stripped[".BTF"], b"t");
        assert!(!stripped.contains_key(".debug_info"));
    }

    #[test]
    fn an_object_without_types_is_refused() {
        let error = strip(&object(&[("xdp", b"code"), ("license", b"GPL\0")])).unwrap_err();
        assert_eq!(error.to_string(), "section .BTF is missing");
    }

    #[test]
    fn a_changed_program_is_found_and_changed_types_are_not() {
        let one = object(&[("xdp", b"code"), (".BTF", b"t")]);
        assert_eq!(
            first_difference(&one, &object(&[("xdp", b"code"), (".BTF", b"u")])).unwrap(),
            None
        );
        let changed = first_difference(&one, &object(&[("xdp", b"kode"), (".BTF", b"t")])).unwrap();
        assert_eq!(changed.as_deref(), Some("xdp"));
    }

    #[test]
    fn a_program_that_only_one_object_has_is_a_difference() {
        let one = object(&[("xdp", b"code")]);
        let more = object(&[("classifier", b"code"), ("xdp", b"code")]);
        assert_eq!(first_difference(&one, &more).unwrap().as_deref(), Some("classifier"));
    }
}
