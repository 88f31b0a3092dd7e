//! What names mean to a container: the services and tasks of its networks, and nothing that it shares no network with.
//!
//! A [`Zone`] is what one network knows; a [`View`] is what one container sees: the zones of its networks in order.

mod spelling;
#[cfg(test)]
mod tests;
mod zone;

use std::net::IpAddr;

pub use zone::Zone;

use crate::Protocol;

/// Most records of one answer: about as many as a message over TCP has room for. Which ones are left out changes by
/// turns.
pub const RECORDS_MAX: usize = 2048;

/// What one row says about names: a task of a service, a container of its own, or a service without any task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its addresses in this network. None for a service that has no task: its names and virtual addresses stay.
    pub addresses: Vec<IpAddr>,
    /// What it alone is called: container name first, then short and full id, host name; the aliases too if it
    /// belongs to no service.
    pub own: Vec<String>,
    /// What its service is called: the service's own name first, which tells services apart, then aliases and
    /// `<service>.<stack>`.
    pub services: Vec<String>,
    /// Virtual addresses of its service in this network; none with endpoint mode `dnsrr`.
    pub vips: Vec<IpAddr>,
    /// Ports of its service that have records of type SRV.
    pub ports: Vec<Port>,
    /// Whether others should be sent there: healthy, not draining, its node not suspended.
    pub active: bool,
    /// Version of its service's spec. The member with the highest one says what the service is.
    pub version: u64,
}

/// A port on which the tasks of a service listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// As in `_<name>._<protocol>.<service>`, without underscore. May be empty.
    pub name: String,
    /// As above.
    pub protocol: Protocol,
    /// Of the container.
    pub port: u16,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A: addresses of IPv4.
    V4,
    /// AAAA: addresses of IPv6.
    V6,
    /// PTR: the name of an address.
    Pointer,
    /// SRV: ports and where they are.
    Service,
    /// A type of record that no name of ours has.
    Other,
}

/// A question, its name in the spelling that is compared: lower case, no dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    name: String,
    kind: Kind,
}

impl Question {
    /// A question about `name`, written with dots.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: spelling::compared(name), kind }
    }
}

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one record, all of the kind asked for.
    Records(Vec<Record>),
    /// The name is ours and has records, of other kinds only.
    NoData,
    /// The name is ours, and nothing is behind it at the moment. A failure that passes, which the client is to take
    /// for one (SERVFAIL, "try again" to a program): "no such address" would be final to most, and cached by some.
    Unavailable,
    /// Not a name of ours as far as was told, and not all has been told yet: it may be one in a moment.
    Unheard,
    /// Not a name of ours: others may know it.
    Unknown,
}

impl Answer {
    /// This answer, or that of the next network if it knows more: records before all, then whether the name is there.
    #[must_use]
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Records(_) => self,
            Self::Unknown => next(),
            Self::Unheard => match next() {
                Self::Unknown => self,
                known => known,
            },
            Self::NoData | Self::Unavailable => match next() {
                found @ Self::Records(_) => found,
                _ => self,
            },
        }
    }
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Pointer(String),
    /// SRV.
    Service {
        /// Port of the target.
        port: u16,
        /// A name that has the addresses below.
        target: String,
        /// Saves the client another question.
        addresses: Vec<IpAddr>,
    },
}

/// What one container sees.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Its host name. It is asked last: where a network knows the name, it counts what the network says.
    pub host: &'a str,
    /// Addresses behind its host name.
    pub addresses: &'a [IpAddr],
    /// Its networks, in order of precedence.
    pub zones: Vec<&'a Zone>,
}

impl View<'_> {
    /// The answer of the first network that has records, else of its own host name. `turn` moves which record comes
    /// first: count questions with it.
    pub fn answer(&self, question: &Question, turn: u64) -> Answer {
        let networks = self
            .zones
            .iter()
            .fold(Answer::Unknown, |answer, zone| answer.or_else(|| zone.answer(question, turn)));
        networks.or_else(|| self.own(question, turn))
    }

    fn own(&self, question: &Question, turn: u64) -> Answer {
        if question.name.is_empty() || question.name != spelling::compared(self.host) {
            return Answer::Unknown;
        }
        of_kind(self.addresses, question.kind, turn)
    }
}

/// The addresses of that family, in this turn's order.
fn of_kind<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>, kind: Kind, turn: u64) -> Answer {
    let family = |address: &&IpAddr| match kind {
        Kind::V4 => address.is_ipv4(),
        Kind::V6 => address.is_ipv6(),
        Kind::Pointer | Kind::Service | Kind::Other => false,
    };
    records(addresses.into_iter().filter(family).copied().map(Record::Address).collect(), turn)
}

/// Another record comes first each turn; no more than there is room for.
fn records(mut records: Vec<Record>, turn: u64) -> Answer {
    if records.is_empty() {
        return Answer::NoData;
    }
    let first = turn % records.len() as u64;
    records.rotate_left(first as usize);
    records.truncate(RECORDS_MAX);
    Answer::Records(records)
}
