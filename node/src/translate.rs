//! The words of one room in the words of another: the only place that knows both.

use covey_crypto::{identity::Role as CertifiedRole, token::JoinToken};
use covey_gossip::Liveness;
use covey_manager::observed;
use covey_mesh as mesh;
use covey_state::{
    Id,
    cluster::Cluster,
    network::{Balance, Protocol},
    node::{Node, Role},
    time::Stamp,
};

use crate::protocol::Peer;

/// The role that a certificate says.
pub fn role(role: CertifiedRole) -> Role {
    match role {
        CertifiedRole::Worker => Role::Worker,
        CertifiedRole::Manager => Role::Manager,
    }
}

/// The role that a certificate is to say.
pub fn certified(role: Role) -> CertifiedRole {
    match role {
        Role::Worker => CertifiedRole::Worker,
        Role::Manager => CertifiedRole::Manager,
    }
}

/// What SWIM says, for the planner.
pub fn liveness((liveness, since): (Liveness, Stamp)) -> observed::Liveness {
    match liveness {
        Liveness::Alive | Liveness::Suspect => observed::Liveness::Alive,
        Liveness::Down => observed::Liveness::Down { since },
        Liveness::Left => observed::Liveness::Left,
    }
}

/// The role that a node's certificate is to say: a manager to be needs it before it can take part, and one that is to
/// be no longer needs it until the others have let it go.
pub fn certified_role(node: &Node) -> Role {
    if node.is_manager() { Role::Manager } else { Role::Worker }
}

/// A node of the store, for the roster.
pub fn peer(node: &Node) -> Peer {
    Peer {
        id: node.id,
        address: node.address,
        public_key: node.public_key,
        role: certified_role(node),
        number: node.number,
        edge: node.edge,
        data_path: node.data_path(),
        hostname: node.description.hostname.clone(),
    }
}

/// The join token for a role; `None` where the cluster's own secret is no secret, which no cluster has.
pub fn token(cluster: &Cluster, ca_digest: [u8; 32], role: Role) -> Option<JoinToken> {
    let secret: Id = match role {
        Role::Worker => &cluster.join.worker,
        Role::Manager => &cluster.join.manager,
    }
    .parse()
    .ok()?;
    Some(JoinToken::new(ca_digest, secret.bits().to_be_bytes()))
}

/// The way in which new connections are balanced.
pub fn balance(balance: Balance) -> mesh::Balance {
    match balance {
        Balance::Random => mesh::Balance::Random,
        Balance::RoundRobin => mesh::Balance::RoundRobin,
        Balance::SourceHash => mesh::Balance::SourceHash,
    }
}

/// A transport protocol.
pub fn protocol(protocol: Protocol) -> mesh::Protocol {
    match protocol {
        Protocol::Tcp => mesh::Protocol::Tcp,
        Protocol::Udp => mesh::Protocol::Udp,
        Protocol::Sctp => mesh::Protocol::Sctp,
    }
}

/// The same the other way.
pub fn protocol_of(protocol: mesh::Protocol) -> Protocol {
    match protocol {
        mesh::Protocol::Tcp => Protocol::Tcp,
        mesh::Protocol::Udp => Protocol::Udp,
        mesh::Protocol::Sctp => Protocol::Sctp,
    }
}
