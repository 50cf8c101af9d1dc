//! Whether packets are looked at before the kernel has a packet buffer for them.

use std::{fmt, str::FromStr};

/// Which uplinks run an XDP program, in their drivers.
///
/// Generic XDP, which the kernel's stack runs, is not among them. Where it has to make room in front of a packet, which
/// most drivers leave too little of, the packet goes on to programs at tcx hooks without its Ethernet header (commit
/// e6d5dbdd20aa of Linux 6.9 puts another packet buffer in its place, without `mac_len`; so it still is in 6.18). Nor
/// could anything be gained: the packet buffer is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// Devices on a bus whose driver can.
    Auto,
    /// All whose driver can.
    Native,
    /// None.
    #[default]
    Off,
}

impl Xdp {
    const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Off];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Xdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Xdp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(mode) = Self::ALL.into_iter().find(|mode| mode.name() == text) {
            return Ok(mode);
        }
        let why = match text {
            "generic" => {
                "\"generic\" is not possible: the kernel passes packets on from such a program without their Ethernet \
                 header, and nothing is faster by it"
                    .to_owned()
            }
            _ => format!("unknown mode {text:?}"),
        };
        Err(format!("{why}: auto, native and off are allowed"))
    }
}
