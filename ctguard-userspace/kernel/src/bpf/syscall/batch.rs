//! Many entries of a map in one system call (Linux 5.6; for longest-prefix maps 5.13).

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aya::maps::{MapData, MapError};

use super::{bpf, number};

const LOOKUP: libc::c_int = 1;
const LOOKUP_BATCH: libc::c_int = 24;
const UPDATE_BATCH: libc::c_int = 26;
const DELETE_BATCH: libc::c_int = 27;

/// Entries of one call.
const MOST: usize = 8192;

/// `union bpf_attr` of the commands.
#[repr(C)]
#[derive(Default)]
struct Batch {
    /// The place where a lookup goes on; none begins.
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<Batch>() == 56);

/// `union bpf_attr` of commands about one entry.
#[repr(C)]
#[derive(Default)]
struct Single {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map whose keys have `K` bytes and whose values have `V`.
#[derive(Debug)]
pub(crate) struct BatchMap<const K: usize, const V: usize> {
    map: MapData,
    capacity: usize,
}

impl<const K: usize, const V: usize> BatchMap<K, V> {
    /// # Errors
    /// If its keys or values have other sizes.
    pub(crate) fn new(map: MapData) -> Result<Self, MapError> {
        let info = map.info()?;
        let [key, value] = [info.key_size(), info.value_size()].map(|size| size as usize);
        if key != K {
            return Err(MapError::InvalidKeySize { size: K, expected: key });
        }
        if value != V {
            return Err(MapError::InvalidValueSize { size: V, expected: value });
        }
        let capacity = info.max_entries() as usize;
        Ok(Self { map, capacity })
    }

    /// The value of a key, as a program finds it; `None` if there is none.
    pub(crate) fn get(&self, key: &[u8; K]) -> io::Result<Option<[u8; V]>> {
        let mut value = [0; V];
        let mut single = Single {
            map: number(self.map.fd().as_fd()).into(),
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: LOOKUP reads the key and writes the value, which have the sizes that `new` compared
        // with the map's, and live until the end of this function.
        match unsafe { bpf(LOOKUP, &mut single) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries, in the kernel's order. While others remove entries, some may be there twice: where
    /// the key is gone at which a call ended, the next one begins anew (`trie_get_next_key`).
    pub(crate) fn entries(&self) -> io::Result<Vec<([u8; K], [u8; V])>> {
        let mut all = Vec::new();
        let (mut keys, mut values) = (vec![[0; K]; MOST], vec![[0; V]; MOST]);
        let (mut from, mut to): (Option<[u8; K]>, [u8; K]) = (None, [0; K]);
        loop {
            let mut batch = self.batch(MOST);
            batch.from = from.as_ref().map_or(0, |from| from.as_ptr() as u64);
            batch.to = to.as_mut_ptr() as u64;
            batch.keys = keys.as_mut_ptr() as u64;
            batch.values = values.as_mut_ptr() as u64;
            // SAFETY: LOOKUP_BATCH reads a key at `from`, and writes one to `to` and at most `count`
            // keys and values. All have the sizes that `new` compared with the map's, and live until
            // the end of this function.
            let read = unsafe { bpf(LOOKUP_BATCH, &mut batch) };
            let count = batch.count as usize;
            let is_last = match read {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            all.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
            if is_last || count == 0 || all.len() > self.capacity {
                return Ok(all);
            }
            from = Some(to);
        }
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let (mut key, mut to, mut value) = ([0_u8; K], [0_u8; K], [0_u8; V]);
        let mut batch = self.batch(1);
        batch.to = to.as_mut_ptr() as u64;
        batch.keys = key.as_mut_ptr() as u64;
        batch.values = value.as_mut_ptr() as u64;
        // SAFETY: as in `entries`, with a count of 1.
        match unsafe { bpf(LOOKUP_BATCH, &mut batch) } {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            Ok(_) | Err(_) => Ok(batch.count == 0),
        }
    }

    /// Adds entries, or changes their values.
    pub(crate) fn update(&self, entries: &[([u8; K], [u8; V])]) -> io::Result<()> {
        for chunk in entries.chunks(MOST) {
            let (keys, values): (Vec<_>, Vec<_>) = chunk.iter().copied().unzip();
            let mut batch = self.batch(chunk.len());
            batch.keys = keys.as_ptr() as u64;
            batch.values = values.as_ptr() as u64;
            // SAFETY: UPDATE_BATCH reads `count` keys and values, which live until the end of this
            // block, of the sizes that `new` compared with the map's.
            unsafe { bpf(UPDATE_BATCH, &mut batch) }?;
        }
        Ok(())
    }

    /// Removes entries; those that are not there may be missing.
    pub(crate) fn remove(&self, keys: &[[u8; K]]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(MOST)];
            let mut batch = self.batch(chunk.len());
            batch.keys = chunk.as_ptr() as u64;
            // SAFETY: DELETE_BATCH reads `count` keys of the size that `new` compared with the map's.
            let removed = unsafe { bpf(DELETE_BATCH, &mut batch) };
            let done = match removed {
                Ok(_) => chunk.len(),
                // It stops at the first that is not there.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    batch.count as usize + 1
                }
                Err(error) => return Err(error),
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        Ok(())
    }

    fn batch(&self, count: usize) -> Batch {
        let map: BorrowedFd<'_> = self.map.fd().as_fd();
        // At most `MOST`.
        let count = u32::try_from(count).unwrap_or_default();
        Batch { count, map: number(map), ..Batch::default() }
    }
}
