//! XDP on uplinks: which run the program, and what is said where one cannot.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use aya::programs::ProgramError;
use rnet_common::{Mac, uplink::uplink_flags};

use super::{
    Ebpf,
    load::{XDP, one_line},
};
use crate::controller::{backend::Uplink, model::xdp::Xdp};

/// Buses of devices whose other end is software, which may leave checksums to whoever receives.
const VIRTUAL_BUSES: [&str; 3] = ["virtio", "xen", "vmbus"];

/// What is asked for, and what has come of it.
pub(super) struct Early {
    mode: Xdp,
    /// The uplinks are named, so that each has to do what is asked.
    is_strict: bool,
    /// Uplinks were looked at before: a daemon that has started does not end because one has come or changed.
    is_running: bool,
    /// By interface index: that it runs the program, or why it does not.
    outcomes: BTreeMap<u32, Result<(), String>>,
}

impl Early {
    pub(super) fn new(mode: Xdp, named_uplinks: bool) -> Self {
        Self {
            mode,
            is_strict: named_uplinks && mode == Xdp::Native,
            is_running: false,
            outcomes: BTreeMap::new(),
        }
    }

    /// Whether any uplink may run the program.
    pub(super) fn is_wanted(&self) -> bool {
        self.mode != Xdp::Off
    }

    /// Whether an interface is to run the program.
    fn wants(&self, uplink: &Uplink) -> bool {
        match self.mode {
            // All others are interfaces of software; a program on a veth takes segmentation offload from its other end.
            Xdp::Auto => uplink.bus.is_some(),
            Xdp::Native => true,
            Xdp::Off => false,
        }
    }

    /// By interface index, how the uplinks that run the program do so.
    pub(super) fn modes(&self) -> BTreeMap<u32, &'static str> {
        let running = self.outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
        running.map(|(index, _)| (*index, Xdp::Native.name())).collect()
    }
}

/// An uplink as the programs know it.
pub(super) fn entry(uplink: &Uplink) -> rnet_common::Uplink {
    let is_wire = uplink.bus.as_deref().is_some_and(|bus| !VIRTUAL_BUSES.contains(&bus));
    let flags = if is_wire { 0 } else { uplink_flags::UNFINISHED };
    rnet_common::Uplink { mac: Mac(uplink.mac.0), flags }
}

impl Ebpf {
    /// Puts the XDP program on those of the uplinks that are to run it and can, and takes it off all others.
    pub(super) fn set_early(&mut self, uplinks: &[Uplink]) -> Result<()> {
        let before = std::mem::take(&mut self.early.outcomes);
        for uplink in uplinks.iter().filter(|uplink| self.early.wants(uplink)).collect::<Vec<_>>() {
            let outcome = self.put_early(uplink);
            if before.get(&uplink.index) != Some(&outcome) {
                match (&outcome, self.early.mode) {
                    (Ok(()), _) => tracing::info!(uplink = uplink.name, "runs XDP"),
                    (Err(why), _) if self.early.is_strict && !self.early.is_running => {
                        bail!("{why}; --xdp auto leaves out what cannot")
                    }
                    (Err(why), Xdp::Native) => tracing::warn!("{why}"),
                    (Err(why), Xdp::Auto | Xdp::Off) => tracing::info!("{why}"),
                }
            }
            self.early.outcomes.insert(uplink.index, outcome);
        }
        self.early.is_running = true;
        self.links.retain(XDP, &self.early.modes().into_keys().collect())
    }

    fn put_early(&mut self, uplink: &Uplink) -> Result<(), String> {
        let name = &uplink.name;
        if uplink.has_vlans {
            return Err(format!(
                "no XDP on {name}: it has VLANs, whose tags a driver may keep from the program"
            ));
        }
        let attached = self.links.attach_xdp(&mut self.programs, uplink.index);
        attached.map_err(|error| format!("no XDP on {name}: {:#}", reason(error)))
    }
}

/// What the kernel's errors mean here (`dev_xdp_attach`).
fn reason(error: anyhow::Error) -> anyhow::Error {
    let error = match error.downcast::<ProgramError>() {
        Ok(error) => error,
        Err(error) => return error,
    };
    let errno =
        if let ProgramError::SyscallError(error) = &error { error.io_error.raw_os_error() } else { None };
    match errno {
        Some(libc::EOPNOTSUPP) => anyhow!("its driver has none"),
        Some(libc::EBUSY | libc::EEXIST) => anyhow!("another XDP program is on it, which is left alone"),
        _ => one_line(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(bus: Option<&str>) -> Uplink {
        Uplink { bus: bus.map(str::to_owned), ..Uplink::default() }
    }

    #[test]
    fn auto_is_for_devices_on_a_bus() {
        for (mode, device, software) in
            [(Xdp::Auto, true, false), (Xdp::Native, true, true), (Xdp::Off, false, false)]
        {
            let early = Early::new(mode, false);
            assert_eq!(early.wants(&uplink(Some("pci"))), device, "{mode}");
            assert_eq!(early.wants(&uplink(Some("virtio"))), device, "{mode}");
            assert_eq!(early.wants(&uplink(None)), software, "{mode}");
        }
    }

    #[test]
    fn only_a_wire_s_checksums_are_finished() {
        let flags = |bus| entry(&uplink(bus)).flags;
        assert_eq!([flags(Some("pci")), flags(Some("usb"))], [0, 0]);
        for bus in [None, Some("virtio"), Some("xen"), Some("vmbus")] {
            assert_eq!(flags(bus), uplink_flags::UNFINISHED, "{bus:?}");
        }
    }
}
