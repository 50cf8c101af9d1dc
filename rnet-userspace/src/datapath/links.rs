//! Attachments: links that are pinned, so that they outlive the daemon, and that a later daemon updates in place.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{CgroupAttachMode, FdLink, LinkError, PinnedLink},
        tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
        xdp::{XdpLink, XdpMode},
    },
};

use super::{
    load::{self, one_line},
    stack::TO_UPLINK,
};

/// The directory of link pins. A tcx link's is named by program and interface: `from_container-12`. bpffs allows no
/// dot in a name (`bpf_lookup`).
pub(super) struct Links {
    dir: PathBuf,
}

impl Links {
    /// The links pinned in `dir`, which is made.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("create directory {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Puts a program on its side of an interface, in place of the one that an earlier daemon put there.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, program: &str, interface: &str, ifindex: u32) -> Result<()> {
        self.attach_to(ebpf, program, interface, ifindex)
            .with_context(|| format!("attach program {program} to {interface}"))
    }

    fn attach_to(&self, ebpf: &mut Ebpf, program: &str, interface: &str, ifindex: u32) -> Result<()> {
        let pin = self.pin_of(program, ifindex);
        let classifier = load::classifier(ebpf, program)?;
        if let Some(link) = pinned::<SchedClassifierLink>(&pin)? {
            match classifier.attach_to_link(link) {
                Ok(id) => {
                    // The pin holds the link, this only lets go of a descriptor.
                    drop(classifier.take_link(id).map_err(one_line)?);
                    return Ok(());
                }
                // The index may be another interface's since.
                Err(e) if has_no_interface(&e) => remove(&pin)?,
                // The program that is there goes on.
                Err(e) => return Err(one_line(e)),
            }
        }
        let id = attach_again(classifier, interface, side(program)).map_err(one_line)?;
        let link: FdLink =
            classifier.take_link(id).map_err(one_line)?.try_into().map_err(one_line::<LinkError>)?;
        // Dropped on failure, which detaches.
        link.pin(&pin).map_err(one_line)?;
        Ok(())
    }

    /// Puts the XDP program on an interface, to be run by its driver, in place of the one that an earlier daemon put
    /// there. Another's program stays, and is an error, as is a driver that cannot: aya's own, for its number.
    pub(super) fn attach_xdp(&self, ebpf: &mut Ebpf, ifindex: u32) -> Result<()> {
        let pin = self.pin_of(load::XDP, ifindex);
        let xdp = load::xdp(ebpf)?;
        if let Some(link) = pinned::<XdpLink>(&pin)? {
            // As for tcx.
            match xdp.attach_to_link(link) {
                Ok(id) => {
                    drop(xdp.take_link(id).map_err(one_line)?);
                    return Ok(());
                }
                Err(e) if has_no_interface(&e) => remove(&pin)?,
                Err(e) => return Err(e.into()),
            }
        }
        let id = xdp.attach_to_if_index(ifindex, XdpMode::Driver)?;
        let link: FdLink = xdp.take_link(id).map_err(one_line)?.try_into().map_err(one_line::<LinkError>)?;
        link.pin(&pin).map_err(one_line)?;
        Ok(())
    }

    /// Takes a program off an interface.
    pub(super) fn detach(&self, program: &str, ifindex: u32) -> Result<()> {
        remove(&self.pin_of(program, ifindex))
    }

    /// Takes a program off every interface but these.
    pub(super) fn retain(&self, program: &str, ifindexes: &BTreeSet<u32>) -> Result<()> {
        for entry in fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))? {
            let pin = entry.with_context(|| format!("read {}", self.dir.display()))?.path();
            let on_interface = pin.file_name().and_then(|name| read_pin(name.to_str()?));
            if on_interface.is_some_and(|(of, ifindex)| of == program && !ifindexes.contains(&ifindex)) {
                remove(&pin)?;
            }
        }
        Ok(())
    }

    /// Puts a program on a cgroup's socket calls, then takes away the one that an earlier daemon put there. For a
    /// moment there are both, which changes nothing: either says no to the same, and what one has led to a container
    /// is no published port to the other.
    pub(super) fn attach_socket(&self, ebpf: &mut Ebpf, program: &str, cgroup: impl AsFd) -> Result<()> {
        let attach = || -> Result<()> {
            let (pin, new) = (self.dir.join(program), self.dir.join(format!("{program}_new")));
            let socket = load::socket(ebpf, program)?;
            let id = socket.attach(cgroup, CgroupAttachMode::Single).map_err(one_line)?;
            let link: FdLink =
                socket.take_link(id).map_err(one_line)?.try_into().map_err(one_line::<LinkError>)?;
            remove(&new)?;
            link.pin(&new).map_err(one_line)?;
            fs::rename(&new, &pin).with_context(|| format!("rename {} to {}", new.display(), pin.display()))
        };
        attach().with_context(|| format!("attach program {program} to the root cgroup"))
    }

    fn pin_of(&self, program: &str, ifindex: u32) -> PathBuf {
        self.dir.join(format!("{program}-{ifindex}"))
    }
}

/// The program and the interface that a tcx or XDP link's pin is named by.
pub(super) fn read_pin(name: &str) -> Option<(&str, u32)> {
    let (program, ifindex) = name.rsplit_once('-')?;
    Some((program, ifindex.parse().ok()?))
}

/// Attaches a program that may just have been taken off the interface: the kernel lets go of a link some time after its
/// pin is gone (`bpf_link_put_deferred`), and takes no program twice until then.
fn attach_again(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
) -> Result<SchedClassifierLinkId, ProgramError> {
    const PAUSE: Duration = Duration::from_millis(2);
    const TRIES: u32 = 1000;
    let mut tries = 0;
    loop {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(interface, side, order) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES =>
            {
                tries += 1;
                thread::sleep(PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Whether a link could not be updated because its interface is gone (`tcx_link_update`, `bpf_xdp_link_update`).
fn has_no_interface(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(error) = error else { return false };
    error.io_error.raw_os_error() == Some(libc::ENOLINK)
}

/// Which packets of an interface a program sees: `to_…` those that leave.
fn side(program: &str) -> TcAttachType {
    if [TO_UPLINK, load::TO_BRIDGE].contains(&program) { TcAttachType::Egress } else { TcAttachType::Ingress }
}

/// The link at a pin, if there is one.
fn pinned<L: TryFrom<FdLink, Error = LinkError>>(pin: &Path) -> Result<Option<L>> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => link,
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(one_line(error).context(format!("open pinned link {}", pin.display()))),
    };
    let link = L::try_from(FdLink::from(link));
    Ok(Some(link.map_err(|error| one_line(error).context(format!("use pinned link {}", pin.display())))?))
}

/// Removes a pin, if it is there.
fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove pin {}", pin.display()))
        }
        _ => Ok(()),
    }
}
