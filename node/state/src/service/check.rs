//! Which specs a service may have, whatever else is in the cluster.

use super::{EndpointError, Mode, ServiceSpec};
use crate::{
    Id,
    container::{NamingError, Resources, SysctlError, check_sysctls},
    network::{ATTACHMENTS_MAX, AttachmentSpec, BALANCE_LABEL, Balance, PublishedPort, UnknownBalance},
};

/// Characters of a service's name: it is a DNS label.
pub const NAME_MAX: usize = 63;
/// Tasks of one service.
pub const REPLICAS_MAX: u64 = 100_000;
/// Aliases of a service in one network: its endpoints carry them.
pub const ALIASES_MAX: usize = 32;
/// Bytes of an alias: what a name has in DNS, without the last dot (RFC 1035).
const ALIAS_MAX: usize = 253;
/// In front of a service's name, this asks for its tasks.
const TASKS: &str = "tasks.";

/// A service spec that no service may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a DNS label.
    #[error(
        "name {0:?} must be valid as a DNS name component: 1 to {NAME_MAX} letters, digits, '-' and '_', a letter or digit first and last"
    )]
    Name(String),
    /// There is nothing to run.
    #[error("image reference must be provided")]
    NoImage,
    /// Too many tasks.
    #[error("a service has at most {REPLICAS_MAX} replicas: not {0}")]
    Replicas(u64),
    /// C-21: such a task could never use what is reserved for it.
    #[error("the {resource} reservation ({reserved}) must not exceed the {resource} limit ({limit})")]
    ReservedAboveLimit {
        /// `memory`, in bytes; `cpu`, in billionths of a CPU.
        resource: &'static str,
        /// What is reserved.
        reserved: u64,
        /// What is the limit.
        limit: u64,
    },
    /// Too many networks.
    #[error("a service has at most {ATTACHMENTS_MAX} networks: not {0}")]
    Networks(usize),
    /// A service joins a network once.
    #[error("network {0} is named twice")]
    NetworkTwice(Id),
    /// Who is in the network of the host has no place in others.
    #[error("the network of the host cannot be used together with other networks")]
    HostAndOthers,
    /// There is no address of the task that the port could lead to.
    #[error(
        "EndpointSpec: port published with ingress mode can't be used with the network of the host: tasks answer on their hosts' own ports; mode=host says which"
    )]
    HostAndIngress,
    /// Too many aliases.
    #[error("a service has at most {ALIASES_MAX} aliases in a network: not {0}")]
    Aliases(usize),
    /// Not a DNS name.
    #[error(
        "alias {0:?} must be valid as a DNS name: up to {ALIAS_MAX} characters, with dots between components of 1 to {NAME_MAX} letters, digits, '-' and '_', a letter or digit first and last"
    )]
    Alias(String),
    /// It would hide what is there already.
    #[error("alias {0:?} begins with {TASKS:?}, which asks for the tasks of a service")]
    AliasOfTasks(String),
    /// No such way to balance.
    #[error(transparent)]
    Balance(#[from] UnknownBalance),
    /// Its tasks cannot find names like that.
    #[error(transparent)]
    Naming(#[from] NamingError),
    /// Its tasks cannot have these settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// It cannot be reached like that.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl ServiceSpec {
    /// Whether a service may have this spec.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), SpecError> {
        if !is_name(&self.name) {
            return Err(SpecError::Name(self.name.clone()));
        }
        if self.task.container.image.is_empty() {
            return Err(SpecError::NoImage);
        }
        let Mode::Replicated { replicas } = self.mode;
        if replicas > REPLICAS_MAX {
            return Err(SpecError::Replicas(replicas));
        }
        let Resources { limits, reservations, .. } = self.task.resources;
        check_reservation("memory", reservations.memory, limits.memory)?;
        check_reservation("cpu", reservations.nano_cpus, limits.nano_cpus)?;
        check_networks(&self.task.networks)?;
        self.check_host_network()?;
        self.balance()?;
        self.task.container.naming.check()?;
        check_sysctls(&self.task.container.sysctls)?;
        Ok(self.endpoint.check()?)
    }

    fn check_host_network(&self) -> Result<(), SpecError> {
        match self.task.host_network {
            true if !self.task.networks.is_empty() => Err(SpecError::HostAndOthers),
            true if self.endpoint.ports.iter().any(PublishedPort::is_ingress) => {
                Err(SpecError::HostAndIngress)
            }
            _ => Ok(()),
        }
    }

    /// Which task takes a new connection: its label says so.
    ///
    /// # Errors
    /// The label says something else.
    pub fn balance(&self) -> Result<Balance, UnknownBalance> {
        self.labels.get(BALANCE_LABEL).map_or(Ok(Balance::default()), |label| label.parse())
    }
}

fn check_networks(networks: &[AttachmentSpec]) -> Result<(), SpecError> {
    if networks.len() > ATTACHMENTS_MAX {
        return Err(SpecError::Networks(networks.len()));
    }
    for (index, AttachmentSpec { network, aliases }) in networks.iter().enumerate() {
        if networks[..index].iter().any(|other| other.network == *network) {
            return Err(SpecError::NetworkTwice(*network));
        }
        if aliases.len() > ALIASES_MAX {
            return Err(SpecError::Aliases(aliases.len()));
        }
        aliases.iter().try_for_each(|alias| check_alias(alias))?;
    }
    Ok(())
}

fn check_alias(alias: &str) -> Result<(), SpecError> {
    if alias.len() > ALIAS_MAX || !alias.split('.').all(is_name) {
        return Err(SpecError::Alias(alias.to_owned()));
    }
    match alias.get(..TASKS.len()) {
        Some(start) if start.eq_ignore_ascii_case(TASKS) => Err(SpecError::AliasOfTasks(alias.to_owned())),
        _ => Ok(()),
    }
}

/// A limit of zero is none.
fn check_reservation(resource: &'static str, reserved: u64, limit: u64) -> Result<(), SpecError> {
    if limit != 0 && reserved > limit {
        return Err(SpecError::ReservedAboveLimit { resource, reserved, limit });
    }
    Ok(())
}

pub(super) fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= NAME_MAX
        && text.bytes().all(inner)
        && ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVC-04
    #[test]
    fn names_are_dns_labels_as_docker_has_them() {
        let longest = "a".repeat(NAME_MAX);
        for name in ["web", "Web-1", "a", "1", "a_b--c", &longest] {
            assert!(is_name(name), "{name}");
        }
        let too_long = "a".repeat(NAME_MAX + 1);
        for name in ["", "-a", "a-", "_a", "a.b", "a b", "ä", &too_long] {
            assert!(!is_name(name), "{name}");
        }
    }

    /// LB-01
    #[test]
    fn an_alias_may_have_dots_between_labels() {
        for alias in ["db", "db.example.com", "10.0.0.1", "tasks", "a.tasks.b", &["a"; 127].join(".")] {
            assert_eq!(check_alias(alias), Ok(()), "{alias}");
        }
        let (long, many) = ("a".repeat(NAME_MAX + 1) + ".b", ["a"; 128].join("."));
        for alias in ["", ".", "a.", ".a", "a..b", "a.-b", "a b.c", &long, &many] {
            assert_eq!(check_alias(alias), Err(SpecError::Alias(alias.to_owned())), "{alias}");
        }
        for alias in ["tasks.web", "Tasks.web"] {
            assert_eq!(check_alias(alias), Err(SpecError::AliasOfTasks(alias.to_owned())));
        }
    }

    /// C-21
    #[test]
    fn a_reservation_may_equal_its_limit_but_not_exceed_it() {
        assert!(check_reservation("cpu", 5, 5).is_ok());
        assert!(check_reservation("cpu", 5, 0).is_ok());
        let error = check_reservation("cpu", 6, 5).unwrap_err();
        assert_eq!(error.to_string(), "the cpu reservation (6) must not exceed the cpu limit (5)");
    }
}
