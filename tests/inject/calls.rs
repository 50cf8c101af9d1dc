//! Which system calls can be made to fail, and how.

use std::fs;

use clap::ValueEnum;
use libc::{c_long, user_regs_struct};
use nix::unistd::Pid;
use rustix::{
    net::{AddressFamily, sockopt::socket_domain},
    process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

/// Calls that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Netlink, and every other socket but those of the file system, which the program is spoken to through.
    Sockets,
    /// Maps, programs and links.
    Bpf,
    /// Files, directories and mounts.
    Files,
    /// Namespaces, threads, processes, pipes, descriptors.
    Processes,
}

/// What a call that fails says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Failure {
    /// That memory, room on the disk, descriptors or processes have run out, or that the disk is broken: whatever the
    /// kernel says of that call.
    Resources,
    /// That a signal came in between (EINTR), of those calls which say so and can be made again. The others are not counted.
    Interruption,
}

/// A system call that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Whose it is, and by which descriptors and memory are looked up.
    pub(crate) thread: Pid,
    /// Its name.
    pub(crate) name: &'static str,
    /// What it says when it fails.
    pub(crate) errno: i32,
    args: [u64; 6],
    subject: Subject,
}

/// What a call is about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// The file behind the descriptor that is this argument.
    Descriptor(usize),
    /// The path that is this argument.
    Path(usize),
    /// This number, which says what is asked for.
    Number(usize),
    Nothing,
}

struct Known {
    number: c_long,
    name: &'static str,
    kind: Kind,
    errno: i32,
    can_be_interrupted: bool,
    subject: Subject,
}

macro_rules! known {
    ($($kind:ident { $($name:ident $errno:ident $subject:ident $(($arg:literal))? $($interruptible:ident)?;)+ })+) => {
        &[$($(Known {
            number: libc::$name,
            name: stringify!($name),
            kind: Kind::$kind,
            errno: libc::$errno,
            can_be_interrupted: known!(@ $($interruptible)?),
            subject: Subject::$subject $(($arg))?,
        },)+)+]
    };
    (@ interruptible) => { true };
    (@) => { false };
}

/// Memory that is mapped is not among them: Rust ends the program when there is none, which is tested by killing it. Nor are
/// limits of the process itself (prlimit(2)), which the kernel has at hand whatever it lacks.
const KNOWN: &[Known] = known! {
    Sockets {
        SYS_socket ENFILE Nothing;
        SYS_bind ENOMEM Descriptor(0);
        SYS_listen EADDRINUSE Descriptor(0);
        SYS_connect ENOMEM Descriptor(0);
        SYS_setsockopt ENOMEM Descriptor(0);
        SYS_getsockopt ENOBUFS Descriptor(0);
        SYS_getsockname ENOBUFS Descriptor(0);
        SYS_sendto ENOBUFS Descriptor(0) interruptible;
        SYS_sendmsg ENOBUFS Descriptor(0) interruptible;
        SYS_recvfrom ENOBUFS Descriptor(0) interruptible;
        SYS_recvmsg ENOBUFS Descriptor(0) interruptible;
    }
    Bpf {
        SYS_bpf ENOMEM Number(0);
    }
    Files {
        SYS_openat ENFILE Path(1) interruptible;
        SYS_read EIO Descriptor(0) interruptible;
        SYS_pread64 EIO Descriptor(0) interruptible;
        SYS_write ENOSPC Descriptor(0) interruptible;
        SYS_pwrite64 ENOSPC Descriptor(0) interruptible;
        SYS_fsync EIO Descriptor(0) interruptible;
        SYS_fdatasync EIO Descriptor(0) interruptible;
        SYS_ftruncate ENOSPC Descriptor(0) interruptible;
        SYS_flock ENOLCK Descriptor(0) interruptible;
        SYS_rename ENOSPC Path(0);
        SYS_renameat ENOSPC Path(1);
        SYS_renameat2 ENOSPC Path(1);
        SYS_mkdir ENOSPC Path(0);
        SYS_mkdirat ENOSPC Path(1);
        SYS_unlink EIO Path(0);
        SYS_unlinkat EIO Path(1);
        SYS_rmdir EIO Path(0);
        SYS_link ENOSPC Path(0);
        SYS_linkat ENOSPC Path(1);
        SYS_symlinkat ENOSPC Path(0);
        SYS_readlink ENOMEM Path(0);
        SYS_readlinkat ENOMEM Path(1);
        SYS_statx ENOMEM Path(1);
        SYS_stat ENOMEM Path(0);
        SYS_newfstatat ENOMEM Path(1);
        SYS_fstat ENOMEM Descriptor(0);
        SYS_statfs ENOMEM Path(0);
        SYS_fstatfs ENOMEM Descriptor(0);
        SYS_getdents64 EIO Descriptor(0);
        SYS_lseek EIO Descriptor(0);
        SYS_chmod EIO Path(0);
        SYS_fchmod EIO Descriptor(0);
        SYS_fchmodat EIO Path(1);
        SYS_chown EIO Path(0);
        SYS_fchown EIO Descriptor(0);
        SYS_fchownat EIO Path(1);
        SYS_mount ENOMEM Path(1);
        SYS_umount2 ENOMEM Path(0);
        SYS_pivot_root ENOMEM Path(0);
        SYS_chroot ENOMEM Path(0);
        SYS_chdir ENOMEM Path(0);
    }
    Processes {
        SYS_setns ENOMEM Descriptor(0);
        SYS_unshare ENOMEM Number(0);
        SYS_sethostname ENOMEM Nothing;
        SYS_clone EAGAIN Number(0);
        SYS_clone3 EAGAIN Nothing;
        SYS_fork EAGAIN Nothing;
        SYS_vfork EAGAIN Nothing;
        SYS_execve ENOMEM Path(0);
        SYS_pipe2 EMFILE Nothing;
        SYS_socketpair EMFILE Nothing;
        SYS_eventfd2 EMFILE Nothing;
        SYS_epoll_create1 EMFILE Nothing;
        SYS_epoll_ctl ENOSPC Descriptor(0);
        SYS_timerfd_create EMFILE Nothing;
        SYS_signalfd4 EMFILE Nothing;
        SYS_memfd_create EMFILE Nothing;
        SYS_pidfd_open EMFILE Number(0);
        SYS_pidfd_send_signal ENOMEM Descriptor(0);
        SYS_dup EMFILE Descriptor(0);
        SYS_dup3 EMFILE Descriptor(0);
        SYS_setsid EPERM Nothing;
        SYS_capset ENOMEM Nothing;
    }
};

impl Call {
    /// The call that a thread is about to make, if it is of this kind and can fail in this way.
    pub(crate) fn of(thread: Pid, regs: &user_regs_struct, kind: Kind, failure: Failure) -> Option<Self> {
        let known = KNOWN.iter().find(|known| known.number.cast_unsigned() == regs.orig_rax)?;
        let errno = match failure {
            Failure::Resources => known.errno,
            Failure::Interruption if known.can_be_interrupted => libc::EINTR,
            Failure::Interruption => return None,
        };
        // Nothing waits for a directory.
        let is_directory = known.number == libc::SYS_openat && regs.rdx & libc::O_DIRECTORY as u64 != 0;
        if is_directory && failure == Failure::Interruption {
            return None;
        }
        let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        let name = known.name.trim_start_matches("SYS_");
        let call = Self { thread, name, errno, args, subject: known.subject };
        (known.kind == kind && call.is_the_programs_own(kind)).then_some(call)
    }

    /// What the call is about, in words.
    pub(crate) fn about(&self) -> String {
        match self.subject {
            Subject::Descriptor(at) => self.descriptor(at).unwrap_or_default(),
            Subject::Path(at) => self.path(at).unwrap_or_default(),
            Subject::Number(at) => self.args[at].to_string(),
            Subject::Nothing => String::new(),
        }
    }

    /// Leaves out what the program says to those who ask it and writes to its log, and what is beside it, such as what the
    /// dynamic loader does before it runs: that these fail says nothing of what it does.
    fn is_the_programs_own(&self, kind: Kind) -> bool {
        const LOG: u64 = 2;
        match (kind, self.subject) {
            (Kind::Sockets, Subject::Nothing) => family(self.args[0]) != Some(AddressFamily::UNIX),
            (Kind::Sockets, Subject::Descriptor(at)) => {
                self.family_of(at).is_some_and(|family| family != AddressFamily::UNIX)
            }
            (Kind::Files, Subject::Descriptor(at)) => {
                // "socket:[1]", "pipe:[1]" and "anon_inode:[eventfd]" are no paths.
                self.args[at] > LOG
                    && self.descriptor(at).is_some_and(|file| file.starts_with('/') && !is_beside_it(&file))
            }
            (Kind::Files, Subject::Path(at)) => self.path(at).is_some_and(|file| !is_beside_it(&file)),
            _ => true,
        }
    }

    fn descriptor(&self, at: usize) -> Option<String> {
        let link = format!("/proc/{}/fd/{}", self.thread, self.args[at]);
        Some(fs::read_link(link).ok()?.display().to_string())
    }

    fn path(&self, at: usize) -> Option<String> {
        use std::os::unix::fs::FileExt;

        let memory = fs::File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut bytes = [0; 256];
        // Shorter at the end of a mapping.
        let count = memory.read_at(&mut bytes, self.args[at]).ok()?;
        let text = bytes.get(..count)?.split(|byte| *byte == 0).next()?;
        // What the descriptor before it is of (AT_EMPTY_PATH).
        if text.is_empty() && at > 0 {
            return self.descriptor(at - 1);
        }
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn family_of(&self, at: usize) -> Option<AddressFamily> {
        if !self.descriptor(at)?.starts_with("socket:") {
            return None;
        }
        let process = rustix::process::Pid::from_raw(process_of(self.thread)?)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let number = i32::try_from(self.args[at]).ok()?;
        let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
        socket_domain(socket).ok()
    }
}

/// What nothing of the program's own goes by: `/lib/x86_64-linux-gnu/libc.so.6`, `/etc/ld.so.cache` where it is looked up, and
/// the kernel's types, which aya reads in more than a thousand pieces, and does without.
fn is_beside_it(file: &str) -> bool {
    file.contains(".so.") || file == "/sys/kernel/btf/vmlinux"
}

fn family(number: u64) -> Option<AddressFamily> {
    Some(AddressFamily::from_raw(u16::try_from(number).ok()?))
}

/// The process that a thread is of.
fn process_of(thread: Pid) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}
