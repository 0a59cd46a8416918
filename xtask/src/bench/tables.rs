//! The kernel's memory of the maps that a process has open, here and on hosts with more processors.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_PERCPU_HASH,
};

use super::usage::directory;

/// `BPF_F_NO_PREALLOC`: elements are allocated one by one.
const NO_PREALLOC: u32 = 1;
/// What an element of a hash table takes beside key and value (`struct htab_elem`).
const ELEMENT: u64 = 48;
const POINTER: u64 = 8;

/// A map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    kind: u32,
    key_bytes: u64,
    value_bytes: u64,
    entries: u64,
    flags: u32,
    bytes: u64,
}

/// The maps that a process has open.
pub(crate) fn held(pid: u32) -> Result<Vec<Table>> {
    let fdinfo = directory(pid).join("fdinfo");
    let entries = fs::read_dir(&fdinfo).with_context(|| format!("reading {}", fdinfo.display()))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // A descriptor may be closed meanwhile.
    let infos = files.into_iter().filter_map(|file| fs::read_to_string(file).ok());
    let tables: BTreeMap<u64, Table> = infos.filter_map(|info| table(&info)).collect();
    Ok(tables.into_values().collect())
}

/// By the kernel's own account.
pub(crate) fn bytes(tables: &[Table]) -> u64 {
    tables.iter().map(|table| table.bytes).sum()
}

/// What the same maps take on a host with so many processors, where this one has `here`.
pub(crate) fn bytes_with(tables: &[Table], here: u64, processors: u64) -> u64 {
    let each = |table: &Table| {
        let own = table.bytes_per_processor();
        table.bytes.saturating_sub(own * here) + own * processors
    };
    tables.iter().map(each).sum()
}

impl Table {
    /// What grows with the number of processors:
    /// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/hashtab.c#L2208-L2242>,
    /// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/arraymap.c#L719-L740>.
    fn bytes_per_processor(&self) -> u64 {
        let [key, value] = [self.key_bytes, self.value_bytes].map(|bytes| bytes.next_multiple_of(POINTER));
        let is = |kind| self.kind == kind as u32;
        if is(BPF_MAP_TYPE_PERCPU_ARRAY) || is(BPF_MAP_TYPE_PERCPU_HASH) {
            value * self.entries
        } else if is(BPF_MAP_TYPE_HASH) && self.flags & NO_PREALLOC == 0 {
            // One to spare, so that replacing one never fails, and where it is.
            ELEMENT + key + value + POINTER
        } else {
            0
        }
    }
}

/// A map's number and what it is.
fn table(info: &str) -> Option<(u64, Table)> {
    let text = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let number = |name: &str| -> Option<u64> { text(name)?.parse().ok() };
    let flags = u32::from_str_radix(text("map_flags:")?.trim_start_matches("0x"), 16).ok()?;
    let table = Table {
        kind: u32::try_from(number("map_type:")?).ok()?,
        key_bytes: number("key_size:")?,
        value_bytes: number("value_size:")?,
        entries: number("max_entries:")?,
        flags,
        bytes: number("memlock:")?,
    };
    Some((number("map_id:")?, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "pos:\t0\nmap_type:\t1\nkey_size:\t8\nvalue_size:\t60\nmax_entries:\t100\nmap_flags:\t0x0\n\
                        map_extra:\t0x0\nmemlock:\t20000\nmap_id:\t7\nfrozen:\t0\n";

    #[test]
    fn a_map_is_read() {
        let (id, table) = table(HASH).expect("a map");
        assert_eq!((id, table.kind, table.entries, table.bytes), (7, 1, 100, 20_000));
        assert_eq!(super::table("prog_id:\t7\nmemlock:\t4096\n"), None);
    }

    #[test]
    fn spare_elements_grow_with_the_processors() {
        let (_, table) = table(HASH).expect("a map");
        assert_eq!(bytes_with(&[table], 2, 2), 20_000);
        assert_eq!(bytes_with(&[table], 2, 64), 20_000 + 62 * (48 + 8 + 64 + 8));
    }
}
