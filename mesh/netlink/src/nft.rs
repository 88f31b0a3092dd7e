//! Our table in the kernel: what it has, and the one step of a plan.

use std::io;

use covey_mesh::masquerade::{Change, Masquerade, Observed};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage, TableAttribute, TableMessage,
};

use crate::{rule, socket::Netfilter};

/// Our table, of the family `inet`.
const TABLE: &str = "covey";
/// Its only chain.
const CHAIN: &str = "postrouting";
/// When the chain is asked: where sources are translated (`srcnat`, `NF_IP_PRI_NAT_SRC` of linux/netfilter_ipv4.h).
const PRIORITY: u32 = 100;

/// nf_tables could not be read or changed. The kernel did nothing.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket itself.
    #[error("netlink socket")]
    Socket(#[from] io::Error),
    /// The kernel refused, with this error number.
    #[error("refused by nf_tables")]
    Refused(#[source] io::Error),
    /// The kernel's answer cannot be read.
    #[error("netlink answer cannot be read")]
    Answer(#[from] netlink_packet_core::DecodeError),
    /// Somebody changes tables all the time.
    #[error("rules change faster than they can be listed")]
    Torn,
    /// No rule says this: the source is not a network, or no link's name begins so.
    #[error("cannot masquerade {} outside of links {:?}", .0.source, .0.inside)]
    Unsayable(Masquerade),
}

/// What holds the rules: the table and its chain.
enum Frame {
    Missing,
    Damaged,
    AsMade,
}

/// One message of a batch, with its flags.
type Step = (NfTablesMessage, u16);

/// Our table of the network namespace in which it was opened.
pub struct Nft {
    netfilter: Netfilter,
}

impl Nft {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel has no netfilter.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self { netfilter: Netfilter::open()? })
    }

    /// What the kernel has in our table. A table or a chain that is not of our form spoils its first rule.
    ///
    /// # Errors
    /// The kernel could not be asked. A missing table is no error, nor is a rule of somebody else in ours.
    pub fn observe(&mut self) -> Result<Observed, NftError> {
        match self.frame()? {
            Frame::Missing => return Ok(None),
            Frame::Damaged => return Ok(Some(Err(0))),
            Frame::AsMade => {}
        }
        let table = RuleMessage { attributes: vec![RuleAttribute::Table(TABLE.to_owned())] };
        let rules = self.netfilter.dump(NfTablesMessage::GetRule(table))?;
        let read = |(place, rule): (usize, &Option<NfTablesMessage>)| our_rule(rule.as_ref()).ok_or(place);
        Ok(Some(rules.iter().enumerate().map(read).collect()))
    }

    /// Takes the step, as one atomic batch. No packet meets a half of it, except where the chain was damaged.
    ///
    /// # Errors
    /// Everything is as it was.
    pub fn apply(&mut self, change: &Change) -> Result<(), NftError> {
        let steps = match change {
            Change::Delete => without_table(),
            Change::Replace(rules) => {
                if let Some(rule) = rules.iter().find(|rule| !rule::is_sayable(rule)) {
                    return Err(NftError::Unsayable(rule.clone()));
                }
                // A new chain beside the old one would be atomic on paper only: a packet asks both in turn, and
                // finds no rule if the batch takes effect between the two.
                let empty = match self.frame()? {
                    Frame::AsMade => vec![(NfTablesMessage::DeleteRule(rule_of_chain()), 0)],
                    Frame::Missing | Frame::Damaged => [without_table(), new_frame()].concat(),
                };
                empty.into_iter().chain(rules.iter().map(new_rule)).collect()
            }
        };
        self.netfilter.batch(steps)
    }

    fn frame(&mut self) -> Result<Frame, NftError> {
        let found = match self.netfilter.get(NfTablesMessage::GetTable(table())) {
            Err(NftError::Refused(error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(Frame::Missing);
            }
            found => found?,
        };
        let flagged = found.iter().flatten().any(has_flags);
        Ok(if !flagged && self.chain_is_as_made()? { Frame::AsMade } else { Frame::Damaged })
    }

    fn chain_is_as_made(&mut self) -> Result<bool, NftError> {
        let all = ChainMessage { attributes: Vec::new() };
        // The kernel lists the chains of every table of the family.
        let in_table = ChainAttribute::Table(TABLE.to_owned());
        let found = self.netfilter.dump(NfTablesMessage::GetChain(all))?;
        let mut ours = found.iter().flatten().filter_map(|message| match message {
            NfTablesMessage::NewChain(chain) if chain.attributes.contains(&in_table) => Some(chain),
            _ => None,
        });
        let (Some(only), None) = (ours.next(), ours.next()) else { return Ok(false) };
        Ok(chain().attributes.iter().all(|attribute| only.attributes.contains(attribute)))
    }
}

fn table() -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(TABLE.to_owned())] }
}

/// A table may be told to sleep, or to belong to one process: ours never is.
fn has_flags(message: &NfTablesMessage) -> bool {
    let NfTablesMessage::NewTable(table) = message else { return false };
    table.attributes.iter().any(|a| matches!(a, TableAttribute::Flags(flags) if !flags.is_empty()))
}

fn chain() -> ChainMessage {
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(TABLE.to_owned()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(InetHookNumber::PostRouting)),
                Hook::Priority(PRIORITY),
            ]),
            ChainAttribute::Policy(libc::NF_ACCEPT as u32),
            ChainAttribute::Type("nat".to_owned()),
        ],
    }
}

/// Made before it is deleted: deleting what is not there would refuse the batch.
fn without_table() -> Vec<Step> {
    vec![(NfTablesMessage::NewTable(table()), NLM_F_CREATE), (NfTablesMessage::DeleteTable(table()), 0)]
}

fn new_frame() -> Vec<Step> {
    vec![
        (NfTablesMessage::NewTable(table()), NLM_F_CREATE),
        (NfTablesMessage::NewChain(chain()), NLM_F_CREATE),
    ]
}

/// All rules of our chain, unless more is said.
fn rule_of_chain() -> RuleMessage {
    RuleMessage {
        attributes: vec![RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(CHAIN.to_owned())],
    }
}

fn new_rule(masquerade: &Masquerade) -> Step {
    let mut rule = rule_of_chain();
    rule.attributes.push(RuleAttribute::Expressions(rule::encode(masquerade)));
    (NfTablesMessage::NewRule(rule), NLM_F_CREATE | NLM_F_APPEND)
}

fn our_rule(message: Option<&NfTablesMessage>) -> Option<Masquerade> {
    let Some(NfTablesMessage::NewRule(rule)) = message else { return None };
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Expressions(expressions) => rule::decode(expressions),
        _ => None,
    })
}
