//! Settings that a container can have of its own, because the kernel keeps them for each namespace.

/// Those of the IPC namespace, as Docker knows them.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// Those of message queues, which are the IPC namespace's as well.
const QUEUES: &str = "fs.mqueue.";
/// Those of the network namespace.
const NETWORK: &str = "net.";

/// Checks that a setting is one of the network or IPC namespace.
///
/// # Errors
/// In Docker's words.
pub fn check(key: &str) -> Result<(), String> {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-/".contains(&b))
    };
    let is_known = key.starts_with(NETWORK) || key.starts_with(QUEUES) || IPC.contains(&key);
    // What becomes a path is not to lead elsewhere: of slashes alone would come `..`.
    let stays = || path(key).split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_known && key.split('.').all(is_name) && stays() {
        return Ok(());
    }
    Err(format!(
        "sysctl '{key}' is not allowed: a container has net.*, {QUEUES}* and {} of its own",
        IPC.join(", ")
    ))
}

/// Where a setting is below `/proc/sys`.
pub fn path(key: &str) -> String {
    // As with sysctl(8), a slash stands for a dot that is part of a name, as in `eth0.7`.
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_namespaces_have_is_let_through() {
        for key in
            ["net.ipv4.ip_forward", "net.ipv4.conf.eth0/7.rp_filter", "kernel.sem", "fs.mqueue.msg_max"]
        {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        for key in [
            "kernel.panic",
            "vm.swappiness",
            "",
            "net",
            "net.",
            "net..x",
            "net.a b",
            "net.ipv4/../../vm",
            "net.//.kernel.panic",
            "net./",
        ] {
            let told = check(key).unwrap_err();
            assert!(told.starts_with(&format!("sysctl '{key}' is not allowed")), "{told}");
        }
        assert_eq!(path("net.ipv4.conf.eth0/7.rp_filter"), "net/ipv4/conf/eth0.7/rp_filter");
    }
}
