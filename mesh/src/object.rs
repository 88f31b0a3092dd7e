//! What our tables hold, as wanted and as observed, and the steps between the two.

use std::collections::BTreeMap;

use crate::expression::Rule;

/// Our tables are called so, in each family.
pub const TABLE: &str = "covey";

/// The families in which we have a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv6 alone.
    Ip6,
    /// One network device.
    Netdev,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inet, Self::Ip6, Self::Netdev];
}

/// The tables of one network namespace that are ours.
pub type Tables = BTreeMap<Family, Table>;

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Of the table itself (dormant, owned): ours has none.
    pub flags: u32,
    /// By name.
    pub chains: BTreeMap<String, Chain>,
    /// Maps and sets, by name.
    pub maps: BTreeMap<String, Map>,
}

/// One chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come in; `None` for one that others lead to.
    pub hook: Option<Hook>,
    /// In the order in which packets meet them.
    pub rules: Vec<Rule>,
}

/// Where packets come into a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: String,
    /// Number of the hook in its family (`enum nf_inet_hooks`, `enum nf_dev_hooks`).
    pub number: u32,
    /// Lower ones come first (`enum nf_ip_hook_priorities`).
    pub priority: i32,
    /// The device, in the family [`Family::Netdev`].
    pub device: Option<String>,
    /// Whether packets that no rule decides on go on: always, in ours.
    pub accepts: bool,
}

/// What fields a key or a value has: for the kernel so many bytes, for people who list it what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// The types of the fields as nft numbers them, six bits each.
    pub kind: u32,
    /// Bytes, of all fields.
    pub length: u32,
}

impl Type {
    /// An address of IPv4.
    pub const IPV4: Self = Self { kind: 7, length: 4 };
    /// An address of IPv6.
    pub const IPV6: Self = Self { kind: 8, length: 16 };
    /// Number of a transport protocol.
    pub const PROTOCOL: Self = Self { kind: 12, length: 4 };
    /// A port.
    pub const PORT: Self = Self { kind: 13, length: 4 };
    /// Any four bytes.
    pub const MARK: Self = Self { kind: 19, length: 4 };

    /// These fields and one more behind.
    pub const fn and(self, next: Self) -> Self {
        Self { kind: self.kind << 6 | next.kind, length: self.length + next.length }
    }
}

/// What kind of map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// `NFT_SET_*` of linux/netfilter/nf_tables.h.
    pub flags: u32,
    /// Of keys.
    pub key: Type,
    /// Of values; `None` for a set, and for a map of verdicts.
    pub value: Option<Type>,
}

/// `NFT_SET_MAP`.
const IS_MAP: u32 = 0x8;

impl Form {
    /// Only keys.
    pub const fn set(key: Type) -> Self {
        Self { flags: 0, key, value: None }
    }

    /// Keys and values.
    pub const fn map(key: Type, value: Type) -> Self {
        Self { flags: IS_MAP, key, value: Some(value) }
    }

    /// From keys to chains.
    pub const fn verdicts(key: Type) -> Self {
        Self { flags: IS_MAP, key, value: None }
    }

    /// Whether keys lead to chains.
    pub const fn leads_to_chains(&self) -> bool {
        self.flags & IS_MAP != 0 && self.value.is_none()
    }
}

/// A map or a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its form.
    pub form: Form,
    /// By key, as bytes of the kernel's registers: each field padded to four.
    pub elements: BTreeMap<Vec<u8>, Value>,
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It is in the set.
    Member,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This chain decides.
    Goto(String),
    /// Something that we never write.
    Foreign,
}

/// One step in one of our tables. The steps of a plan are one atomic batch for each table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In which of our tables.
    pub family: Family,
    /// What is done.
    pub step: Step,
}

/// What is done in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The table is made.
    AddTable,
    /// The table goes, with all that is in it.
    DeleteTable,
    /// A chain without rules is made.
    AddChain(String, Option<Hook>),
    /// A chain without rules goes.
    DeleteChain(String),
    /// The chain has these rules and no others.
    SetRules(String, Vec<Rule>),
    /// An empty map is made.
    AddMap(String, Form),
    /// A map goes, with its elements.
    DeleteMap(String),
    /// A map gains an element.
    AddElement(String, Vec<u8>, Value),
    /// A map loses an element.
    DeleteElement(String, Vec<u8>),
}

impl Change {
    /// What kind of kernel object this is about, as a metric's label.
    pub const fn object(&self) -> &'static str {
        match &self.step {
            Step::AddTable | Step::DeleteTable => "nft_table",
            Step::AddChain(..) | Step::DeleteChain(_) => "nft_chain",
            Step::SetRules(..) => "nft_rule",
            Step::AddMap(..) | Step::DeleteMap(_) => "nft_map",
            Step::AddElement(..) | Step::DeleteElement(..) => "nft_element",
        }
    }
}
