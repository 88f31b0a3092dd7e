//! Who may be a member: what a manager does when somebody asks to join, or for a new certificate.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use covey_crypto::{
    authority::{Authority, BACKDATED},
    certificate::CaCertificate,
    identity::PeerIdentity,
    token::JoinToken,
};
use covey_state::{
    Id, Store,
    cluster::{Cluster, EdgePool},
    command::{Command, Proposal},
    node::{NodeSpec, Role},
    range,
    time::Stamp,
};
use ipnet::IpNet;

use crate::{
    clock,
    member::Log,
    protocol::{JoinRequest, Joined, RenewRequest, Renewed},
    roster, translate,
};

/// Networks that a joining machine may name.
const NETWORKS_MAX: usize = 4096;

/// Makes whoever knows the secret a member.
///
/// # Errors
/// A sentence for the user of the joining machine; the cluster is as before.
pub async fn join(log: &Log, from: SocketAddr, request: JoinRequest) -> Result<Joined> {
    let store = log.read().await?;
    let cluster = store.cluster().context("this manager has no cluster yet")?;
    let authority = authority(cluster)?;
    let role = role_of(cluster, authority.certificate(), &request.token)?;
    check_clock(clock::now(), request.clock)?;
    if request.networks.len() > NETWORKS_MAX {
        bail!("the machine names {} networks; at most {NETWORKS_MAX} are looked at", request.networks.len());
    }
    check_pool(&cluster.spec.edge, &request.networks)?;

    let id = clock::new_id();
    let lifetime = cluster.spec.certificate_lifetime;
    let certificate =
        authority.issue(&request.request, id, translate::certified(role), clock::wall(), lifetime)?;
    let public_key = authority.certificate().verify(&certificate)?.public_key;
    let advertise = reachable(request.advertise, from.ip());
    let spec = NodeSpec {
        name: String::new(),
        labels: Default::default(),
        role,
        availability: request.availability,
    };
    let create =
        Command::CreateNode { id, spec, description: request.description, address: advertise, public_key };
    log.propose(&Proposal { planned_at: None, commands: vec![create] }).await?;
    let roster = roster::full(&log.store());
    Ok(Joined { certificate: certificate.to_vec(), advertise, managers: managers(&roster), roster })
}

/// Gives a member a new certificate, in the role that the cluster wants it to have.
///
/// # Errors
/// It is no member any more, or asks for somebody else.
pub async fn renew(log: &Log, from: PeerIdentity, request: RenewRequest) -> Result<Renewed> {
    let store = log.read().await?;
    let renewed = issue(&store, from.id, &request)?;
    let node = store.node(from.id).filter(|node| node.address != request.advertise);
    if let Some(node) = node {
        let description = node.description.clone();
        let moved = Command::DescribeNode { id: node.id, description, address: request.advertise };
        log.propose(&Proposal { planned_at: None, commands: vec![moved] }).await?;
    }
    Ok(renewed)
}

/// Gives this manager a new certificate by what its own log knows. Every manager holds the authority; one that was
/// removed while it was away gets nowhere with the certificate.
///
/// # Errors
/// It is no member any more.
pub fn renew_alone(log: &Log, me: PeerIdentity, request: RenewRequest) -> Result<Renewed> {
    issue(&log.store(), me.id, &request)
}

fn issue(store: &Store, id: Id, request: &RenewRequest) -> Result<Renewed> {
    let cluster = store.cluster().context("this manager has no cluster yet")?;
    let node = store.node(id).with_context(|| format!("node {id} is no member of this swarm any more"))?;
    let authority = authority(cluster)?;
    let role = translate::certified(translate::certified_role(node));
    let lifetime = cluster.spec.certificate_lifetime;
    let certificate = authority.issue(&request.request, id, role, clock::wall(), lifetime)?;
    if authority.certificate().verify(&certificate)?.public_key != node.public_key {
        bail!("the request is not signed with the key of node {id}");
    }
    Ok(Renewed { certificate: certificate.to_vec(), managers: managers(&roster::full(store)) })
}

fn managers(roster: &crate::protocol::Roster) -> Vec<(Id, SocketAddr)> {
    let managers = roster.peers.iter().filter(|peer| peer.role == Role::Manager);
    managers.map(|peer| (peer.id, peer.address)).collect()
}

/// The authority as the cluster remembers it.
///
/// # Errors
/// The log holds something else, which no log does.
pub fn authority(cluster: &Cluster) -> Result<Authority> {
    Ok(Authority::from_pem(&cluster.authority.certificate, &cluster.authority.key)?)
}

fn role_of(cluster: &Cluster, ca: &CaCertificate, token: &str) -> Result<Role> {
    let shown: JoinToken = token.parse()?;
    let matches =
        |role| translate::token(cluster, ca.digest(), role).is_some_and(|token| token.matches(&shown));
    // Both are compared, whatever the first one says.
    match (matches(Role::Worker), matches(Role::Manager)) {
        (_, true) => Ok(Role::Manager),
        (true, _) => Ok(Role::Worker),
        _ => bail!(
            "invalid join token: its secret is not (or no longer) the cluster's; see `swarm join-token`"
        ),
    }
}

/// A certificate that is issued now has to be valid on the clock of the machine that gets it.
fn check_clock(ours: Stamp, theirs: Stamp) -> Result<()> {
    let (behind, ahead) = (ours.since(theirs), theirs.since(ours));
    let (off, word) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead of") };
    if off >= BACKDATED {
        let off = humantime::format_duration(std::time::Duration::from_secs(off.as_secs()));
        bail!("the clock of this machine is {off} {word} the cluster's: set it, then join again");
    }
    Ok(())
}

/// Containers' addresses must not be somebody else's already.
///
/// # Errors
/// Names the network, the pool and the option.
pub fn check_pool(pool: &EdgePool, networks: &[IpNet]) -> Result<()> {
    for (pool, option) in [(IpNet::V4(pool.v4), "--edge-pool"), (IpNet::V6(pool.v6), "--edge-pool-v6")] {
        // A default route leads to nobody in particular.
        let mut known = networks.iter().filter(|network| network.prefix_len() > 0);
        if let Some(network) = known.find(|network| range::overlap(**network, pool)) {
            bail!(
                "the pool of container addresses {pool} overlaps {network}, which this machine reaches already; \
                 choose another pool with `covey swarm init {option}`"
            );
        }
    }
    Ok(())
}

/// The address that a machine says, completed by what is seen of it.
fn reachable(advertise: SocketAddr, seen: IpAddr) -> SocketAddr {
    if advertise.ip().is_unspecified() {
        SocketAddr::new(seen.to_canonical(), advertise.port())
    } else {
        advertise
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_by_how_much() {
        let now = Stamp(1_800_000_000_000_000_000);
        assert!(check_clock(now, now + Duration::from_secs(59 * 60)).is_ok());
        let late = check_clock(now + Duration::from_secs(3 * 3600), now).unwrap_err().to_string();
        assert!(late.contains("3h behind the cluster's"), "{late}");
        let early = check_clock(now, now + Duration::from_secs(7200)).unwrap_err().to_string();
        assert!(early.contains("2h ahead of the cluster's"), "{early}");
    }

    #[test]
    fn a_pool_that_overlaps_a_local_network_is_refused_with_the_option_to_change_it() {
        let pool = EdgePool::default();
        for (network, option) in [
            ("100.64.7.0/24", "--edge-pool`"),
            ("100.0.0.0/8", "--edge-pool`"),
            ("fd00:c0e7::/64", "--edge-pool-v6`"),
        ] {
            let error = check_pool(&pool, &[network.parse().unwrap()]).unwrap_err().to_string();
            assert!(error.contains(network) && error.contains(option), "{error}");
        }
        let others = ["10.0.0.0/8".parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
        assert!(check_pool(&pool, &others).is_ok());
    }

    #[test]
    fn an_unspecified_address_becomes_the_one_that_is_seen() {
        let seen: IpAddr = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(reachable(([0, 0, 0, 0], 2377).into(), seen).to_string(), "10.0.0.7:2377");
        assert_eq!(reachable(([10, 1, 1, 1], 99).into(), seen).to_string(), "10.1.1.1:99");
    }
}
