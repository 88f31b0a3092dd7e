//! The cluster itself.

use covey_state::cluster::{Cluster, ClusterSpec, DATA_PATH_PORT, EdgePool, NetworkPool};
use ipnet::IpNet;

use super::{duration, later, node};
use crate::{
    control::{InitRequest, JoinRequest, View},
    failure::Failure,
    wire::{Meta, ObjectVersion, Time, nanos, swarm as wire},
};

/// Docker's bounds for the UDP port of the data path.
const DATA_PATH_PORTS: std::ops::RangeInclusive<u32> = 1024..=49151;

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
    let ClusterSpec { edge, networks, data_path_port, .. } = &cluster.spec;
    let pools = networks.v4.iter().map(ToString::to_string).chain([networks.v6.to_string()]);
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
        default_addr_pool: pools.collect(),
        subnet_size: networks.v4_subnet,
        data_path_port: *data_path_port,
        edge_addr_pool: vec![edge.v4.to_string(), edge.v6.to_string()],
        edge_block_size: edge.v4_block,
    }
}

/// `swarm init`.
pub fn init_from_wire(request: wire::InitRequest) -> Result<InitRequest, Failure> {
    if request.auto_lock_managers {
        return Err(Failure::not_yet("--autolock"));
    }
    let mut spec = spec_from_wire(request.spec, ClusterSpec::default())?;
    spec.edge = edge_pool(&request.edge_addr_pool, request.edge_block_size)?;
    spec.networks = network_pool(&request.default_addr_pool, request.subnet_size)?;
    spec.networks.check(&spec.edge).map_err(|error| Failure::invalid(error.to_string()))?;
    spec.data_path_port = data_path_port(request.data_path_port)?;
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

/// 0 is the default.
fn data_path_port(port: u32) -> Result<u16, Failure> {
    if port == 0 {
        return Ok(DATA_PATH_PORT);
    }
    let within = u16::try_from(port).ok().filter(|_| DATA_PATH_PORTS.contains(&port));
    within.ok_or_else(|| {
        let (first, last) = (DATA_PATH_PORTS.start(), DATA_PATH_PORTS.end());
        Failure::invalid(format!("invalid data path port {port}: it lies between {first} and {last}"))
    })
}

/// The address blocks of a request, by family.
fn pools(texts: &[String]) -> Result<(Vec<ipnet::Ipv4Net>, Vec<ipnet::Ipv6Net>), Failure> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for text in texts {
        match text.parse::<IpNet>() {
            Ok(IpNet::V4(net)) => v4.push(net.trunc()),
            Ok(IpNet::V6(net)) => v6.push(net.trunc()),
            Err(_) => {
                return Err(Failure::invalid(format!(
                    "invalid address pool {text:?}: it is no block such as 10.0.0.0/8"
                )));
            }
        }
    }
    Ok((v4, v6))
}

/// The pools of the nodes' edge blocks: at most one of each family.
fn edge_pool(texts: &[String], block: u32) -> Result<EdgePool, Failure> {
    let mut edge = EdgePool::default();
    let (v4, v6) = pools(texts)?;
    if v4.len() > 1 || v6.len() > 1 {
        return Err(Failure::not_yet("more than one edge pool of a family"));
    }
    edge.v4 = v4.first().copied().unwrap_or(edge.v4);
    edge.v6 = v6.first().copied().unwrap_or(edge.v6);
    if block != 0 {
        edge.v4_block = u8::try_from(block).unwrap_or(u8::MAX);
    }
    edge.check().map_err(|error| Failure::invalid(error.to_string()))?;
    Ok(edge)
}

/// The pools of the networks' subnets: any number of IPv4, at most one of IPv6.
fn network_pool(texts: &[String], subnet: u32) -> Result<NetworkPool, Failure> {
    let mut networks = NetworkPool::default();
    let (v4, v6) = pools(texts)?;
    if v6.len() > 1 {
        return Err(Failure::not_yet("more than one IPv6 address pool"));
    }
    if !v4.is_empty() {
        networks.v4 = v4;
    }
    networks.v6 = v6.first().copied().unwrap_or(networks.v6);
    if subnet != 0 {
        networks.v4_subnet = u8::try_from(subnet).unwrap_or(u8::MAX);
    }
    Ok(networks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    #[test]
    fn settings_read_back_and_zero_keeps_what_is() {
        let spec = ClusterSpec { task_history_limit: 2, ..ClusterSpec::default() };
        assert_eq!(spec_from_wire(spec_to_wire(&spec), ClusterSpec::default()), Ok(spec.clone()));
        assert_eq!(spec_from_wire(wire::Spec::default(), spec.clone()), Ok(spec));
    }

    fn texts(pools: &[&str]) -> Vec<String> {
        pools.iter().map(|pool| (*pool).to_owned()).collect()
    }

    /// CLU-03
    #[test]
    fn the_pools_of_networks_are_checked() {
        let pool = |pools: &[&str], size| network_pool(&texts(pools), size);
        assert_eq!(pool(&[], 0), Ok(NetworkPool::default()));
        let several = pool(&["10.20.0.0/16", "10.30.1.0/16", "fd11::/48"], 26).unwrap();
        assert_eq!(
            several.v4.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.20.0.0/16", "10.30.0.0/16"]
        );
        assert_eq!((several.v6.to_string().as_str(), several.v4_subnet), ("fd11::/48", 26));
        for pools in [&["ten"][..], &["10.0.0.0"], &["fd00::/48", "fd01::/48"]] {
            assert!(pool(pools, 0).is_err(), "{pools:?}");
        }
        let init = |request: serde_json::Value| init_from_wire(serde_json::from_value(request).unwrap());
        for (pools, size) in
            [(&["10.0.0.0/16"][..], 8), (&[], 30), (&[], 300), (&["fd00::/65"], 0), (&["100.64.0.0/16"], 0)]
        {
            let request = serde_json::json!({"DefaultAddrPool": pools, "SubnetSize": size});
            assert!(
                init(request).is_err_and(|failure| failure.kind == FailureKind::Invalid),
                "{pools:?} {size}"
            );
        }
    }

    /// CLU-03
    #[test]
    fn the_edge_pool_is_checked() {
        let pool = |pools: &[&str], block| edge_pool(&texts(pools), block);
        assert_eq!(pool(&[], 0), Ok(EdgePool::default()));
        assert_eq!(pool(&["10.0.0.0/8"], 24).map(|edge| edge.v4.to_string()), Ok("10.0.0.0/8".into()));
        for (pools, block) in
            [(&["10.0.0.0/8", "11.0.0.0/8"][..], 0), (&["ten"], 0), (&["10.0.0.0/16"], 8), (&[], 31)]
        {
            assert!(pool(pools, block).is_err(), "{pools:?} {block}");
        }
    }

    #[test]
    fn the_data_path_port_has_bounds() {
        assert_eq!(data_path_port(0), Ok(4789));
        assert_eq!(data_path_port(49151), Ok(49151));
        for port in [1, 1023, 49152, 65536 + 4789] {
            assert!(data_path_port(port).is_err(), "{port}");
        }
    }
}
