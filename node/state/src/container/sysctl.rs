//! Settings of the kernel that a container has for itself.

use std::collections::BTreeMap;

/// Settings of one container.
pub const SYSCTLS_MAX: usize = 64;
/// Bytes of a name, and of a value.
const TEXT_BYTES_MAX: usize = 256;
/// Of a container's own interprocess communication.
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
/// As [`IPC`].
const QUEUES: &str = "fs.mqueue.";
/// Of a container's own network.
const NETWORK: &str = "net.";

/// A setting that a container cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// Too many.
    #[error("a container has at most {SYSCTLS_MAX} sysctls: not {0}")]
    TooMany(usize),
    /// It would be the whole host's.
    #[error(
        "sysctl {0:?} is not in a separate kernel namespace: a container has net., fs.mqueue. and those of System V IPC"
    )]
    NotOwn(String),
    /// Not a name.
    #[error(
        "sysctl {0:?} is not valid: its name has 1 to {TEXT_BYTES_MAX} letters, digits, '-' and '_', with dots between"
    )]
    Name(String),
    /// Not a value.
    #[error("sysctl {0:?} is not valid: its value is one line of 1 to {TEXT_BYTES_MAX} characters")]
    Value(String),
}

/// Whether a container may have these settings, by their names with dots: they are its own, and stay below the place of
/// all settings.
///
/// # Errors
/// The first rule that one breaks.
pub fn check_sysctls(sysctls: &BTreeMap<String, String>) -> Result<(), SysctlError> {
    if sysctls.len() > SYSCTLS_MAX {
        return Err(SysctlError::TooMany(sysctls.len()));
    }
    for (name, value) in sysctls {
        if !is_name(name) {
            return Err(SysctlError::Name(name.clone()));
        }
        if !(is_of_network(name) || name.starts_with(QUEUES) || IPC.contains(&name.as_str())) {
            return Err(SysctlError::NotOwn(name.clone()));
        }
        if value.is_empty()
            || value.len() > TEXT_BYTES_MAX
            || value.chars().any(|c| c.is_control() && c != '\t')
        {
            return Err(SysctlError::Value(name.clone()));
        }
    }
    Ok(())
}

/// Whether a setting is one of a network namespace.
pub fn is_of_network(name: &str) -> bool {
    name.starts_with(NETWORK)
}

fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.len() <= TEXT_BYTES_MAX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str) -> Result<(), SysctlError> {
        check_sysctls(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    /// CTR-03
    #[test]
    fn a_container_has_what_is_its_own() {
        for (name, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.ip_local_port_range", "1024\t65000"),
            ("net.ipv6.conf.all.disable_ipv6", "1"),
            ("kernel.msgmax", "65536"),
            ("kernel.sem", "250 32000 100 128"),
            ("fs.mqueue.msg_max", "100"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_the_hosts_or_leads_out_is_refused() {
        for name in ["vm.swappiness", "kernel.core_pattern", "kernel.msgmaxi", "fs.file-max", "network.x"] {
            assert_eq!(check(name, "1"), Err(SysctlError::NotOwn(name.to_owned())));
        }
        let long = format!("net.{}", "a".repeat(TEXT_BYTES_MAX));
        for name in ["", "net.", "net..x", "net/../kernel/core_pattern", "net.ipv4/x", "net.a b", &long] {
            assert_eq!(check(name, "1"), Err(SysctlError::Name(name.to_owned())));
        }
        for value in ["", "1\n2", "1\0", &"1".repeat(TEXT_BYTES_MAX + 1)] {
            assert_eq!(check("net.x", value), Err(SysctlError::Value("net.x".to_owned())));
        }
        let many = (0..=SYSCTLS_MAX).map(|n| (format!("net.a{n}"), "1".to_owned())).collect();
        assert_eq!(check_sysctls(&many), Err(SysctlError::TooMany(SYSCTLS_MAX + 1)));
    }
}
