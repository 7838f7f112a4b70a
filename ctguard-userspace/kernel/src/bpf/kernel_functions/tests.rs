//! Types of kernels that are not this one, put together by hand (Documentation/bpf/btf.rst).

use std::fs;

use super::*;

const STRUCT: u32 = 4;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;

/// One BTF section: types without members, named in its own strings.
#[derive(Default)]
struct Section {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where its strings begin: behind those of the section that it continues.
    first_string: usize,
}

impl Section {
    fn kernel() -> Self {
        Self { strings: vec![0], ..Self::default() }.with(PROTOTYPE, "", 0)
    }

    fn continuing(kernel: &Self) -> Self {
        Self { first_string: kernel.strings.len(), ..Self::default() }
    }

    fn with(mut self, kind: u32, name: &str, size_or_type: u32) -> Self {
        let offset = if name.is_empty() { 0 } else { self.first_string + self.strings.len() };
        self.strings.extend(name.bytes().chain(if name.is_empty() { None } else { Some(0) }));
        for word in [u32::try_from(offset).unwrap(), kind << 24, size_or_type] {
            self.types.extend(word.to_ne_bytes());
        }
        self
    }

    fn with_conntrack(self, options_bytes: u32) -> Self {
        // A variable or structure of the same name is no function.
        self.with(STRUCT, LOOKUP, 4)
            .with(STRUCT, OPTIONS, options_bytes)
            .with(FUNCTION, LOOKUP, 1)
            .with(FUNCTION, RELEASE, 1)
    }

    fn bytes(&self) -> Vec<u8> {
        let [types, strings] =
            [&self.types, &self.strings].map(|part| u32::try_from(part.len()).unwrap());
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types, types, strings] {
            bytes.extend(word.to_ne_bytes());
        }
        [bytes, self.types.clone(), self.strings.clone()].concat()
    }
}

/// What is found in a directory of these files.
fn find(test: &str, files: &[(&str, &Section)]) -> Result<Found, FunctionsError> {
    let directory = std::env::temp_dir().join(format!("ctguard-{}-{test}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for (name, section) in files {
        fs::write(directory.join(name), section.bytes()).unwrap();
    }
    let found = find_in(&directory);
    fs::remove_dir_all(&directory).unwrap();
    found
}

fn at(btf_id: i32, fd_index: i16) -> Location {
    Location { btf_id, fd_index }
}

#[test]
fn functions_that_are_built_in_are_the_kernels() {
    let kernel = Section::kernel().with_conntrack(16);
    let (locations, options_bytes) = find("built_in", &[(KERNEL, &kernel)]).unwrap();
    assert_eq!(locations, Locations { lookup: at(4, 0), release: at(5, 0) });
    assert_eq!(options_bytes, 16);
}

#[test]
fn a_modules_functions_are_numbered_after_the_kernels_types() {
    let kernel = Section::kernel().with(STRUCT, "nf_conn", 8);
    let module = Section::continuing(&kernel).with_conntrack(12);
    let found = find("module", &[(KERNEL, &kernel), (MODULE, &module)]);
    let (locations, options_bytes) = found.unwrap();
    assert_eq!(locations, Locations { lookup: at(5, 1), release: at(6, 1) });
    assert_eq!(options_bytes, 12);
}

#[test]
fn options_of_an_unknown_size_are_not_filled_in() {
    let kernel = Section::kernel().with_conntrack(20);
    let error = find("options", &[(KERNEL, &kernel)]).unwrap_err();
    assert_eq!(error.detection(), Detection::OptionsUnknown);
    assert!(error.to_string().contains("20 bytes"), "{error}");
}

#[test]
fn an_older_kernel_lacks_the_functions() {
    let kernel = Section::kernel();
    let module = Section::continuing(&kernel).with(STRUCT, "nf_conn", 8);
    for files in [&[(KERNEL, &kernel)][..], &[(KERNEL, &kernel), (MODULE, &module)]] {
        let error = find("older", files).unwrap_err();
        assert_eq!(error.detection(), Detection::FunctionsMissing);
        assert!(error.to_string().contains(LOOKUP), "{error}");
    }
}

#[test]
fn types_that_are_hidden_or_cut_short_are_unreadable() {
    let error = find("hidden", &[]).unwrap_err();
    assert_eq!(error.detection(), Detection::TypesUnreadable);
    assert!(error.to_string().contains(KERNEL), "{error}");

    let mut kernel = Section::kernel().with_conntrack(16);
    kernel.types.pop();
    let error = find("cut", &[(KERNEL, &kernel)]).unwrap_err();
    assert_eq!(error.detection(), Detection::TypesUnreadable);
}
