//! The object with its calls of kernel functions rewritten, for a kernel that has conntrack built in.

use anyhow::{Context as _, Result};
use aya_obj::btf::{Btf, BtfKind};
use ctguard_layout::kernel_functions::{Location, Locations, rewrite};

/// `struct bpf_ct_opts` with zones (Linux 6.10).
const OPTIONS_BYTES: u32 = 16;

/// The object whose calls find conntrack's functions, or nothing; and the bytes of their options.
pub(super) fn rewritten(object: &[u8], asks_conntrack: bool) -> Result<(Vec<u8>, u32)> {
    let functions = if asks_conntrack { Some(locate()?) } else { None };
    let mut object = object.to_vec();
    let (instructions, _) = object.as_chunks_mut();
    for instruction in instructions {
        if let Some(rewritten) = rewrite(*instruction, functions.as_ref(), true) {
            *instruction = rewritten;
        }
    }
    Ok((object, if asks_conntrack { OPTIONS_BYTES } else { 0 }))
}

fn locate() -> Result<Locations> {
    let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    let location = |name: &str| -> Result<Location> {
        let id = btf
            .id_by_type_name_kind(name, BtfKind::Func)
            .with_context(|| format!("this kernel has no {name} built in"))?;
        Ok(Location { btf_id: i32::try_from(id)?, fd_index: 0 })
    };
    Ok(Locations { lookup: location("bpf_xdp_ct_lookup")?, release: location("bpf_ct_release")? })
}
