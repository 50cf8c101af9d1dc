//! Many entries of a hash map in few system calls.
//!
//! Walking a map key by key takes two calls an entry, and begins anew whenever the key that it stands on is
//! removed. A batch is taken bucket by bucket, and sees each entry that stays exactly once.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result};
use aya::{Pod, maps::MapData};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Entries asked for in one call.
const BATCH: usize = 4096;

/// Entries of a hash map, and the bucket that the next ones begin at; none behind the last.
pub(super) type Stretch<K, V> = (Vec<(K, V)>, Option<u32>);

/// Every entry of a hash map.
pub(super) fn entries<K: Pod, V: Pod>(map: &MapData) -> Result<Vec<(K, V)>> {
    let (mut entries, mut next) = some(map, None)?;
    while next.is_some() {
        let more;
        (more, next) = some(map, next)?;
        entries.extend(more);
    }
    Ok(entries)
}

/// Some entries of a hash map: about as many as one call gives, from a bucket on (`__htab_map_lookup_and_delete_batch`).
pub(super) fn some<K: Pod, V: Pod>(map: &MapData, from: Option<u32>) -> Result<Stretch<K, V>> {
    let mut keys = vec![MaybeUninit::<K>::uninit(); BATCH];
    let mut values = vec![MaybeUninit::<V>::uninit(); BATCH];
    loop {
        let (found, next) = look_up(map, from, &mut keys, &mut values).context("read a map")?;
        let next = match next {
            Next::At(_) if found == 0 => {
                // A bucket with more entries than fit.
                keys.resize(keys.len() * 2, MaybeUninit::uninit());
                values.resize(values.len() * 2, MaybeUninit::uninit());
                continue;
            }
            Next::At(next) => Some(next),
            Next::End => None,
        };
        let entries = keys.iter().zip(&values).take(found).map(|(key, value)| {
            // SAFETY: the kernel has filled in this many keys, and every bit pattern is a value of a `Pod`.
            let key = unsafe { key.assume_init() };
            // SAFETY: likewise.
            let value = unsafe { value.assume_init() };
            (key, value)
        });
        return Ok((entries.collect(), next));
    }
}

/// Adds entries, or replaces them whole; those before one that is refused are there all the same.
pub(super) fn insert<K: Pod, V: Pod>(map: &MapData, entries: &[(K, V)]) -> io::Result<()> {
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
        change(map, bpf_cmd::BPF_MAP_UPDATE_BATCH, keys, Some(values)).1?;
    }
    Ok(())
}

/// Removes entries, those that are there.
pub(super) fn remove<K: Pod>(map: &MapData, keys: &[K]) -> io::Result<()> {
    let mut left = keys;
    while !left.is_empty() {
        let some = left.get(..BATCH).unwrap_or(left);
        let (done, result) = change::<K, ()>(map, bpf_cmd::BPF_MAP_DELETE_BATCH, some, None);
        let done = match result {
            Ok(()) => some.len(),
            // It stops at the first that is not there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done + 1,
            Err(error) => return Err(error),
        };
        left = left.get(done..).unwrap_or_default();
    }
    Ok(())
}

/// Changes entries until one is refused, and says how many were changed.
fn change<K: Pod, V>(
    map: &MapData,
    command: bpf_cmd,
    keys: &[K],
    values: Option<&[V]>,
) -> (usize, io::Result<()>) {
    // SAFETY: a union of integers.
    let mut attr: bpf_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.map_or(0, |values| values.as_ptr() as u64);
    attr.batch.count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    attr.batch.map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the pointers are to `count` keys and, where the command takes them, as many values, of the sizes that
    // the map was made with, as `Table` sees to; all of it outlives the call, which only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) };
    let result = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: an integer, which the kernel has set to the number of entries unless it failed altogether.
    let done = unsafe { attr.batch.count } as usize;
    // Where it failed before the first one, the number is as it was.
    let done = if result.is_err() && done == keys.len() { 0 } else { done };
    (done, result)
}

enum Next {
    At(u32),
    End,
}

/// Reads entries from `position` on, and says how many and where to go on.
fn look_up<K: Pod, V: Pod>(
    map: &MapData,
    position: Option<u32>,
    keys: &mut [MaybeUninit<K>],
    values: &mut [MaybeUninit<V>],
) -> io::Result<(usize, Next)> {
    let start = position.unwrap_or_default();
    let mut next = start;
    // SAFETY: a union of integers.
    let mut attr: bpf_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attr.batch.in_batch = if position.is_some() { &raw const start as u64 } else { 0 };
    attr.batch.out_batch = &raw mut next as u64;
    attr.batch.keys = keys.as_mut_ptr() as u64;
    attr.batch.values = values.as_mut_ptr() as u64;
    attr.batch.count = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    attr.batch.map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the pointers are to memory for `count` keys and values of the sizes that the map was made with, as
    // `Table` sees to, and to two numbers; all of it outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_LOOKUP_BATCH, &raw mut attr, size_of::<bpf_attr>())
    };
    // SAFETY: an integer, which the kernel has set to the number of entries unless it failed altogether.
    let found = unsafe { attr.batch.count } as usize;
    if result == 0 {
        return Ok((found, Next::At(next)));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok((found, Next::End)),
        Some(libc::ENOSPC) => Ok((0, Next::At(start))),
        _ => Err(error),
    }
}
