//! `rnet cni`.

use std::io;

use anyhow::Result;

use super::{DONE, FAILED, print};
use crate::{bounded, integrations::cni};

/// Answers as a CNI plugin. What is refused is said on standard output, as the specification wants it.
pub(super) fn run(instance: &str) -> Result<u8> {
    let variable = |name: &str| std::env::var(name).ok();
    let reply = cni::serve(variable, || bounded::read(io::stdin().lock(), bounded::CALL), instance);
    if let Some(json) = &reply.json {
        print::pretty(json)?;
    }
    Ok(if reply.is_refusal { FAILED } else { DONE })
}
