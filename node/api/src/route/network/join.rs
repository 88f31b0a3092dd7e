//! Networks by the names that users give them: what services may be attached to, and what plain containers may join.

use covey_state::{Id, Store, lookup::LookupError, network::AttachmentSpec};

use crate::{
    app::App,
    control::LocalState,
    convert::{
        network::{BRIDGE, join},
        service::Places,
    },
    engine::{Join, NetworkRef},
    failure::Failure,
    networks::{Given, Known, Networks, missing},
    wire::{container::EndpointConfig, service},
};

/// The networks of a service, by their ids: those of the cluster, or the host's own.
pub async fn attachments(
    app: &App,
    store: &Store,
    wanted: Vec<service::Attachment>,
) -> Result<Places, Failure> {
    let mut places = Places::default();
    for service::Attachment { target, aliases, .. } in wanted {
        let network = match store.find_network(&target) {
            Ok(network) => network.id,
            Err(LookupError::NotFound { .. }) => {
                check_host(app, &target, &aliases).await?;
                places.host = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        places.networks.push(AttachmentSpec { network, aliases });
    }
    Ok(places)
}

/// What is no network of the cluster is the one of the host, or cannot be used with services.
async fn check_host(app: &App, target: &str, aliases: &[String]) -> Result<(), Failure> {
    match app.networks().await?.get(target)? {
        Known::Given(Given::Host) if aliases.is_empty() => Ok(()),
        Known::Given(Given::Host) => Err(Failure::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        )),
        Known::Given(Given::Ingress) => Err(Failure::invalid(
            "rpc error: code = InvalidArgument desc = Service cannot be explicitly attached to the ingress network \
             \"ingress\"",
        )),
        Known::Given(Given::Bridge) => Err(Failure::not_yet("--network bridge of a service")),
        known => Err(Failure::invalid(format!(
            "The network {} cannot be used with services. Only networks scoped to the swarm can be used, such as \
             those created with the overlay driver.",
            known.name()
        ))),
    }
}

/// The places that a plain container wants, with the name of the network of each.
pub async fn joins(app: &App, wanted: Vec<(String, EndpointConfig)>) -> Result<Vec<(String, Join)>, Failure> {
    // The edge is always there: nothing has to be asked for it.
    let networks = match wanted.iter().all(|(reference, _)| reference == BRIDGE) {
        true => None,
        false => Some(app.networks().await?),
    };
    let mut joins: Vec<(String, Join)> = Vec::new();
    for (reference, config) in wanted {
        let (name, network) = match &networks {
            Some(networks) => joinable(app, networks, &reference).await?,
            None => (reference, NetworkRef::Bridge),
        };
        if joins.iter().any(|(_, join)| join.network == network) {
            return Err(Failure::invalid(format!("network {name} is named twice")));
        }
        joins.push((name, join(network, config)?));
    }
    Ok(joins)
}

/// The network that a plain container can join, and its name.
pub async fn joinable(
    app: &App,
    networks: &Networks,
    reference: &str,
) -> Result<(String, NetworkRef), Failure> {
    let not_attachable = |name: &str| {
        Err(Failure::forbidden(format!(
            "Could not attach to network {name}: rpc error: code = PermissionDenied desc = network {name} not \
             manually attachable"
        )))
    };
    let in_cluster = |name: &str, id: Id, attachable: bool| match attachable {
        true => Ok((name.to_owned(), NetworkRef::Cluster(id))),
        false => not_attachable(name),
    };
    match networks.find(reference)? {
        Some(Known::Given(Given::Bridge)) => Ok((BRIDGE.to_owned(), NetworkRef::Bridge)),
        Some(Known::Given(Given::Host | Given::None)) => Err(Failure::forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other \
             network",
        )),
        Some(known @ Known::Given(Given::Gateway | Given::Ingress)) => not_attachable(known.name()),
        Some(Known::Local(network)) => Ok((network.spec.name.clone(), NetworkRef::Local(network.id.clone()))),
        Some(Known::Cluster(network)) => in_cluster(&network.spec.name, network.id, network.spec.attachable),
        // A worker does not know all networks, nor all of one.
        Some(Known::Carried(_)) | None if app.control.membership().state == LocalState::Active => {
            match app.control.find_network(reference).await? {
                Some(network) => in_cluster(&network.spec.name, network.id, network.spec.attachable),
                None => Err(missing(reference)),
            }
        }
        Some(Known::Carried(_)) | None => Err(missing(reference)),
    }
}
