//! Which programs are attached to a cgroup, which aya can ask for those that guard devices only.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};

/// More than the kernel lets be attached at one place (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

/// Numbers of the programs that are attached to the cgroup itself, in the order in which they run.
///
/// # Errors
/// Those of `bpf(BPF_PROG_QUERY)`: without `CAP_NET_ADMIN` or root it is refused.
pub(super) fn attached(cgroup: impl AsFd, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    let mut programs = vec![0_u32; MOST];
    // SAFETY: a union of integers.
    let mut attr: bpf_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: all of its members are integers.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = cgroup.as_fd().as_raw_fd().cast_unsigned();
    query.attach_type = hook as u32;
    query.prog_ids = programs.as_mut_ptr() as u64;
    query.__bindgen_anon_2.prog_cnt = u32::try_from(programs.len()).unwrap_or(u32::MAX);
    // SAFETY: the pointer is to memory for `prog_cnt` numbers of four bytes, which outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_QUERY, &raw mut attr, size_of::<bpf_attr>())
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of its members are integers.
    let query = unsafe { &attr.query };
    // SAFETY: an integer, which the kernel has set to how many there are.
    let count = unsafe { query.__bindgen_anon_2.prog_cnt };
    programs.truncate(count as usize);
    Ok(programs)
}
