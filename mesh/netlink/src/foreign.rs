//! Chains of others that stand in the way: only looked at, never changed.

use covey_mesh::object::TABLE;

use crate::{
    attribute::{Attributes, find_name},
    read,
    socket::{Netfilter, NetfilterError, Request},
    write::attr,
};

/// `NF_INET_FORWARD` of linux/netfilter.h.
const FORWARD: u32 = 2;
/// How often chains are listed anew because somebody changed some table meanwhile.
const ATTEMPTS_MAX: usize = 16;
/// Families in which packets are forwarded, as `nft` names them.
const FAMILIES: [(i32, &str); 3] =
    [(libc::NFPROTO_INET, "inet"), (libc::NFPROTO_IPV4, "ip"), (libc::NFPROTO_IPV6, "ip6")];

/// A chain of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChain {
    /// As `nft` names it.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// Chains of others, in this thread's network namespace, that drop forwarded packets unless a rule of theirs accepts
/// them: what our own tables accept is dropped by them all the same.
///
/// # Errors
/// The kernel could not be asked, or somebody changes tables all the time.
pub fn forward_drops() -> Result<Vec<ForeignChain>, NetfilterError> {
    let mut netfilter = Netfilter::open()?;
    let mut drops = Vec::new();
    for (number, family) in FAMILIES {
        for body in list(&mut netfilter, number as u8)? {
            let table = find_name(&body, attr::TABLE).unwrap_or_default();
            if let Some((chain, Some(hook))) = read::chain(&body)
                && hook.number == FORWARD
                && !hook.accepts
                && table != TABLE
            {
                drops.push(ForeignChain { family, table, chain });
            }
        }
    }
    Ok(drops)
}

fn list(netfilter: &mut Netfilter, family: u8) -> Result<Vec<Vec<u8>>, NetfilterError> {
    for _ in 0..ATTEMPTS_MAX {
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_GETCHAIN) as u16;
        let request =
            Request { kind, flags: 0, family, resource: 0, body: Attributes::default().into_bytes() };
        if let Some(found) = netfilter.dump(request)? {
            return Ok(found);
        }
    }
    Err(NetfilterError::Torn)
}
