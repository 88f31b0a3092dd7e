//! What this node counts of its networks.

use std::collections::{BTreeMap, BTreeSet};

use covey_api::control::DataPlane;

use super::{Networks, edge::name_of, fault::KINDS, keeper::Keeper};

/// What is counted now; nothing once the networks have ended.
pub async fn count(networks: &Networks) -> DataPlane {
    networks.look(|keeper| of(keeper)).await.unwrap_or_default()
}

fn of(keeper: &Keeper) -> DataPlane {
    // A kind that was never mended is told too: what appears only later cannot be seen to grow.
    let mut drift: BTreeMap<&str, u64> = KINDS.into_iter().map(|kind| (kind, 0)).collect();
    drift.extend(&keeper.drift);
    DataPlane {
        drift,
        repairs: keeper.repairs,
        networks: keeper.carriers.len(),
        endpoints: keeper.carriers.values().map(|carrier| carrier.balancer.rows.count()).sum(),
        unconfirmed: keeper.unconfirmed.len(),
        // One that is refused for both families is one.
        refused_ports: keeper.edge.refused.keys().map(name_of).collect::<BTreeSet<_>>().len(),
    }
}
