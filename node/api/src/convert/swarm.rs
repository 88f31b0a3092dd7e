//! The cluster itself.

use covey_state::cluster::{Cluster, ClusterSpec, EdgePool};

use super::{duration, later, node};
use crate::{
    control::{InitRequest, JoinRequest, View},
    failure::Failure,
    wire::{Meta, ObjectVersion, Time, nanos, swarm as wire},
};

/// Where docker's clients look for the data path; one UDP port carries everything here.
const DATA_PATH_PORT: u16 = 4789;

/// `basis` with what the request says; zero means "as it is".
pub fn spec_from_wire(spec: wire::Spec, basis: ClusterSpec) -> Result<ClusterSpec, Failure> {
    later::refuse(&spec.ca_config.rest, later::CA)?;
    later::refuse(&spec.task_defaults, &[("LogDriver", "--log-driver for all tasks")])?;
    if spec.encryption_config.auto_lock_managers {
        return Err(Failure::not_yet("--autolock"));
    }
    if !matches!(spec.name.as_str(), "" | "default") {
        return Err(Failure::invalid("the name of a swarm is \"default\""));
    }
    let mut merged = ClusterSpec { labels: spec.labels, ..basis };
    if let Some(limit) = spec.orchestration.task_history_retention_limit {
        merged.task_history_limit = super::amount(limit, "TaskHistoryRetentionLimit")?;
    }
    if spec.dispatcher.heartbeat_period != 0 {
        merged.heartbeat_period = duration(spec.dispatcher.heartbeat_period, "HeartbeatPeriod")?;
    }
    if spec.ca_config.node_cert_expiry != 0 {
        merged.certificate_lifetime = certificate_lifetime(spec.ca_config.node_cert_expiry)?;
    }
    let raft = &mut merged.raft;
    for (said, kept) in [
        (spec.raft.heartbeat_tick, &mut raft.heartbeat_tick),
        (spec.raft.election_tick, &mut raft.election_tick),
    ] {
        if said != 0 {
            *kept = said;
        }
    }
    if raft.election_tick <= raft.heartbeat_tick {
        return Err(Failure::invalid("invalid ticks: ElectionTick must be above HeartbeatTick"));
    }
    if spec.raft.snapshot_interval != 0 {
        raft.snapshot_interval = spec.raft.snapshot_interval;
    }
    Ok(merged)
}

fn certificate_lifetime(nanos: i64) -> Result<std::time::Duration, Failure> {
    const MIN: std::time::Duration = std::time::Duration::from_secs(3600);
    let lifetime = duration(nanos, "NodeCertExpiry")?;
    if lifetime < MIN {
        return Err(Failure::invalid("invalid NodeCertExpiry: certificates last at least 1h"));
    }
    Ok(lifetime)
}

/// The settings as the Engine API writes them.
pub fn spec_to_wire(spec: &ClusterSpec) -> wire::Spec {
    wire::Spec {
        name: "default".to_owned(),
        labels: spec.labels.clone(),
        orchestration: wire::Orchestration {
            task_history_retention_limit: i64::try_from(spec.task_history_limit).ok(),
        },
        raft: wire::Raft {
            snapshot_interval: spec.raft.snapshot_interval,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: 0,
            election_tick: spec.raft.election_tick,
            heartbeat_tick: spec.raft.heartbeat_tick,
        },
        dispatcher: wire::Dispatcher { heartbeat_period: nanos(spec.heartbeat_period) },
        ca_config: wire::CaConfig {
            node_cert_expiry: nanos(spec.certificate_lifetime),
            ..wire::CaConfig::default()
        },
        ..wire::Spec::default()
    }
}

/// The cluster as the Engine API writes it.
pub fn cluster_to_wire(cluster: &Cluster, view: &View) -> wire::ClusterInfo {
    let edge = cluster.spec.edge;
    wire::ClusterInfo {
        id: cluster.id.to_string(),
        meta: Meta {
            version: ObjectVersion { index: cluster.version },
            created_at: Time(cluster.created_at),
            updated_at: Time(cluster.updated_at),
        },
        spec: spec_to_wire(&cluster.spec),
        tls_info: node::tls_info(view),
        root_rotation_in_progress: false,
        default_addr_pool: vec![edge.v4.to_string(), edge.v6.to_string()],
        subnet_size: edge.v4_block,
        data_path_port: DATA_PATH_PORT,
    }
}

/// `swarm init`.
pub fn init_from_wire(request: wire::InitRequest) -> Result<InitRequest, Failure> {
    refuse_data_path(&request.data_path_addr, request.data_path_port)?;
    if request.auto_lock_managers {
        return Err(Failure::not_yet("--autolock"));
    }
    let mut spec = spec_from_wire(request.spec, ClusterSpec::default())?;
    spec.edge = edge_pool(&request.default_addr_pool, request.subnet_size)?;
    Ok(InitRequest {
        advertise: request.advertise_addr,
        listen: request.listen_addr,
        data_path: request.data_path_addr,
        availability: node::availability(&request.availability)?,
        force_new_cluster: request.force_new_cluster,
        spec,
    })
}

/// `swarm join`.
pub fn join_from_wire(request: wire::JoinRequest) -> Result<JoinRequest, Failure> {
    refuse_data_path(&request.data_path_addr, 0)?;
    if request.remote_addrs.iter().all(String::is_empty) {
        return Err(Failure::invalid("at least 1 address of a manager is required: swarm join HOST:PORT"));
    }
    if request.join_token.is_empty() {
        return Err(Failure::invalid(
            "a join token is required: see \"docker swarm join-token\" on a manager",
        ));
    }
    Ok(JoinRequest {
        remotes: request.remote_addrs.into_iter().filter(|remote| !remote.is_empty()).collect(),
        token: request.join_token,
        advertise: request.advertise_addr,
        listen: request.listen_addr,
        data_path: request.data_path_addr,
        availability: node::availability(&request.availability)?,
    })
}

fn refuse_data_path(address: &str, port: u32) -> Result<(), Failure> {
    if !address.is_empty() {
        return Err(Failure::not_yet("--data-path-addr"));
    }
    if port != 0 && port != u32::from(DATA_PATH_PORT) {
        return Err(Failure::not_yet("--data-path-port"));
    }
    Ok(())
}

/// The address pools of a request: at most one of each family.
fn edge_pool(pools: &[String], block: u32) -> Result<EdgePool, Failure> {
    let mut edge = EdgePool::default();
    let (mut v4, mut v6) = (None, None);
    for text in pools {
        let wrong = || Failure::invalid(format!("invalid default address pool {text:?}"));
        if text.contains(':') {
            edge.v6 = text.parse().map_err(|_| wrong())?;
            if v6.replace(text).is_some() {
                return Err(Failure::not_yet("more than one address pool of a family"));
            }
        } else {
            edge.v4 = text.parse().map_err(|_| wrong())?;
            if v4.replace(text).is_some() {
                return Err(Failure::not_yet("more than one address pool of a family"));
            }
        }
    }
    if block != 0 {
        edge.v4_block = u8::try_from(block).unwrap_or(u8::MAX);
    }
    if edge.v4_block > 30 || edge.v4_block < edge.v4.prefix_len() {
        return Err(Failure::invalid(format!(
            "invalid subnet size {block}: it lies between the pool's {} and 30",
            edge.v4.prefix_len()
        )));
    }
    if edge.v6.prefix_len() > 64 {
        return Err(Failure::invalid("invalid default address pool: each node gets a /64 of the IPv6 pool"));
    }
    Ok(edge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_zero_keeps_what_is() {
        let spec = ClusterSpec { task_history_limit: 2, ..ClusterSpec::default() };
        assert_eq!(spec_from_wire(spec_to_wire(&spec), ClusterSpec::default()), Ok(spec.clone()));
        assert_eq!(spec_from_wire(wire::Spec::default(), spec.clone()), Ok(spec));
    }

    /// CLU-03
    #[test]
    fn address_pools_are_checked() {
        let pool = |pools: &[&str], block| {
            edge_pool(&pools.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), block)
        };
        assert_eq!(pool(&[], 0), Ok(EdgePool::default()));
        assert_eq!(pool(&["10.0.0.0/8"], 24).map(|edge| edge.v4.to_string()), Ok("10.0.0.0/8".into()));
        for (pools, block) in
            [(&["10.0.0.0/8", "11.0.0.0/8"][..], 0), (&["ten"], 0), (&["10.0.0.0/16"], 8), (&[], 31)]
        {
            assert!(pool(pools, block).is_err(), "{pools:?} {block}");
        }
    }
}
