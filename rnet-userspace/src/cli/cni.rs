//! `rnet cni`.

use std::io::{self, Read as _};

use anyhow::Result;

use super::{DONE, FAILED, print};
use crate::integrations::cni;

/// Answers as a CNI plugin. What is refused is said on standard output, as the specification wants it.
pub(super) fn run(instance: &str) -> Result<u8> {
    let variable = |name: &str| std::env::var(name).ok();
    let input = || {
        let mut input = Vec::new();
        io::stdin().lock().read_to_end(&mut input)?;
        Ok(input)
    };
    let reply = cni::serve(variable, input, instance);
    if let Some(json) = &reply.json {
        print::pretty(json)?;
    }
    Ok(if reply.is_refusal { FAILED } else { DONE })
}
