//! Commands on the cluster itself.

use std::sync::Arc;

use super::{Entry, check_version};
use crate::{
    Id, Version,
    cluster::{Authority, Cluster, ClusterSpec, DATA_PATH_PORTS, JoinSecrets},
    command::Refusal,
    event::{Change, Event},
};

impl Entry {
    pub(super) fn create_cluster(
        &mut self,
        id: Id,
        spec: &ClusterSpec,
        authority: &Authority,
        join: &JoinSecrets,
    ) -> Result<(), Refusal> {
        if self.store.cluster.is_some() {
            return Err(Refusal::Invalid("the cluster exists already".to_owned()));
        }
        check(spec)?;
        let cluster = Cluster {
            id,
            version: self.index,
            created_at: self.at,
            updated_at: self.at,
            spec: spec.clone(),
            authority: authority.clone(),
            join: join.clone(),
        };
        self.put_cluster(cluster, Change::Created);
        Ok(())
    }

    pub(super) fn update_cluster(&mut self, version: Version, spec: &ClusterSpec) -> Result<(), Refusal> {
        let mut cluster = self.cluster()?;
        check_version(version, cluster.version)?;
        check(spec)?;
        if spec.edge != cluster.spec.edge {
            return Err(Refusal::Invalid("the edge pool is fixed when the cluster is created".to_owned()));
        }
        if spec.networks != cluster.spec.networks {
            return Err(Refusal::Invalid(
                "the address pools of networks are fixed when the cluster is created".to_owned(),
            ));
        }
        if spec.data_path_port != cluster.spec.data_path_port {
            return Err(Refusal::Invalid(
                "the data path port is fixed when the cluster is created".to_owned(),
            ));
        }
        cluster.spec = spec.clone();
        self.put_cluster(cluster, Change::Updated);
        Ok(())
    }

    pub(super) fn set_join_secrets(&mut self, version: Version, join: &JoinSecrets) -> Result<(), Refusal> {
        let mut cluster = self.cluster()?;
        check_version(version, cluster.version)?;
        cluster.join = join.clone();
        self.put_cluster(cluster, Change::Updated);
        Ok(())
    }

    /// A copy of the cluster to change.
    pub(super) fn cluster(&self) -> Result<Cluster, Refusal> {
        self.store
            .cluster()
            .cloned()
            .ok_or_else(|| Refusal::Invalid("the cluster has not been created".to_owned()))
    }

    fn put_cluster(&mut self, mut cluster: Cluster, change: Change) {
        cluster.version = self.index;
        cluster.updated_at = self.at;
        self.store.cluster = Some(Arc::new(cluster));
        self.events.push(Event::Cluster(change));
    }
}

fn check(spec: &ClusterSpec) -> Result<(), Refusal> {
    spec.edge.check().map_err(|error| Refusal::Invalid(error.to_string()))?;
    spec.networks.check(&spec.edge).map_err(|error| Refusal::Invalid(error.to_string()))?;
    if !DATA_PATH_PORTS.contains(&spec.data_path_port) {
        let (port, first, last) = (spec.data_path_port, DATA_PATH_PORTS.start(), DATA_PATH_PORTS.end());
        return Err(Refusal::Invalid(format!(
            "data path port {port} is not valid: it must be {first} to {last}"
        )));
    }
    let raft = &spec.raft;
    if raft.tick.is_zero() || raft.heartbeat_tick == 0 || raft.snapshot_interval == 0 {
        return Err(Refusal::Invalid(
            "tick, heartbeat tick and snapshot interval of the raft must not be zero".to_owned(),
        ));
    }
    if raft.election_tick <= raft.heartbeat_tick {
        return Err(Refusal::Invalid("election tick must be greater than heartbeat tick".to_owned()));
    }
    if spec.heartbeat_period.is_zero() || spec.certificate_lifetime.is_zero() {
        return Err(Refusal::Invalid(
            "the heartbeat period and the lifetime of certificates must not be zero".to_owned(),
        ));
    }
    Ok(())
}
