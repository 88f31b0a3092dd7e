//! How a container finds names, where it is not as its networks and its host have it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Entries of each list of a [`Naming`].
pub const NAMING_MAX: usize = 64;
/// Bytes of a name in DNS (RFC 1035), and of an option.
const WORD_BYTES_MAX: usize = 253;
/// The search domain that stands for none.
const NO_SEARCH: &str = ".";

/// What a container's `/etc/resolv.conf` and `/etc/hosts` have that nobody else's have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// Asked for what its networks do not know, in place of the host's.
    pub servers: Vec<IpAddr>,
    /// Domains in which names are looked up; see [`Naming::search`].
    pub search: Vec<String>,
    /// Options of the C library's resolver, such as `ndots:2`.
    pub options: Vec<String>,
    /// Names for which nobody is asked.
    pub hosts: Vec<HostEntry>,
}

/// A line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// What the names mean.
    pub address: IpAddr,
    /// At least one.
    pub names: Vec<String>,
}

/// Names that cannot be found like that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// Too many of one kind.
    #[error("a container has at most {NAMING_MAX} {what}: not {count}")]
    TooMany {
        /// Of which kind.
        what: &'static str,
        /// So many.
        count: usize,
    },
    /// Not a domain.
    #[error(
        "search domain {0:?} is not valid: it has 1 to {WORD_BYTES_MAX} letters, digits, '.', '-' and '_'"
    )]
    Search(String),
    /// Not one word.
    #[error("option {0:?} of the resolver is not valid: it is one word, such as ndots:2")]
    Option(String),
    /// Not a name.
    #[error(
        "host name {0:?} of an additional host is not valid: it has 1 to {WORD_BYTES_MAX} letters, digits, '.', '-' and '_'"
    )]
    Host(String),
    /// An address without a name.
    #[error("the additional host {0} has no name")]
    Nameless(IpAddr),
}

impl Naming {
    /// Whether a container may have this: every word ends up in a file of lines.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), NamingError> {
        let counts = [
            ("name servers", self.servers.len()),
            ("search domains", self.search.len()),
            ("options of the resolver", self.options.len()),
            ("additional hosts", self.hosts.iter().map(|host| host.names.len()).sum()),
        ];
        if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count > NAMING_MAX) {
            return Err(NamingError::TooMany { what, count });
        }
        if let Some(wrong) = self.search.iter().find(|domain| !is_name(domain)) {
            return Err(NamingError::Search(wrong.clone()));
        }
        if let Some(wrong) = self.options.iter().find(|option| !is_word(option)) {
            return Err(NamingError::Option(wrong.clone()));
        }
        for host in &self.hosts {
            if host.names.is_empty() {
                return Err(NamingError::Nameless(host.address));
            }
            if let Some(wrong) = host.names.iter().find(|name| !is_name(name)) {
                return Err(NamingError::Host(wrong.clone()));
            }
        }
        Ok(())
    }

    /// The domains in which names are looked up in place of those of the host, which may be none; `None`: those of the host.
    pub fn search(&self) -> Option<&[String]> {
        match self.search.as_slice() {
            [] => None,
            [none] if none == NO_SEARCH => Some(&[]),
            some => Some(some),
        }
    }
}

fn is_name(text: &str) -> bool {
    is_word(text) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_graphic() && !b"#;".contains(&byte);
    (1..=WORD_BYTES_MAX).contains(&text.len()) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(names: &[&str]) -> Naming {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Naming { hosts: vec![HostEntry { address: [10, 0, 0, 9].into(), names }], ..Naming::default() }
    }

    /// CTR-11
    #[test]
    fn nothing_but_words_gets_into_the_files_of_a_container() {
        assert_eq!(host(&["db", "db.lan", "my_db-1"]).check(), Ok(()));
        for name in ["", "a b", "a\n127.0.0.1 evil", "#", "é", &"a".repeat(254)] {
            assert_eq!(host(&[name]).check(), Err(NamingError::Host(name.to_owned())));
        }
        assert_eq!(host(&[]).check(), Err(NamingError::Nameless([10, 0, 0, 9].into())));
        let many = vec!["a"; NAMING_MAX + 1];
        assert_eq!(host(&many[1..]).check(), Ok(()));
        assert!(matches!(host(&many).check(), Err(NamingError::TooMany { count: 65, .. })));
        let option = |text: &str| Naming { options: vec![text.to_owned()], ..Naming::default() };
        assert_eq!(option("ndots:2").check(), Ok(()));
        for wrong in ["", "a b", "a\nnameserver 192.0.2.1", "a#", "a;"] {
            assert_eq!(option(wrong).check(), Err(NamingError::Option(wrong.to_owned())));
        }
    }

    /// CTR-11
    #[test]
    fn a_lone_dot_is_no_search_domain() {
        let search = |domains: &[&str]| {
            let search = domains.iter().map(|domain| (*domain).to_owned()).collect();
            Naming { search, ..Naming::default() }
        };
        assert_eq!(search(&[]).search(), None);
        assert_eq!(search(&["."]).search(), Some(&[][..]));
        assert_eq!(search(&["a", "b"]).search().map(<[String]>::len), Some(2));
        assert!(search(&["."]).check().is_ok());
        assert_eq!(search(&["a b"]).check(), Err(NamingError::Search("a b".to_owned())));
    }
}
