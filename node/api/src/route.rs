//! The routes: one file per noun.

mod auth;
mod container;
mod covey;
mod event;
mod exec;
mod image;
mod later;
mod logs;
mod metrics;
mod network;
mod node;
mod service;
mod swarm;
mod system;
mod task;
mod volume;

use axum::Router;
use covey_state::{Id, lookup::LookupError};

use crate::{
    app::App,
    control::{LocalState, View},
    failure::Failure,
};

/// All routes. A path or method that none has is `page not found`.
pub fn all(app: App) -> Router {
    let nouns = [
        auth::routes(),
        container::routes(),
        covey::routes(),
        event::routes(),
        exec::routes(),
        image::routes(),
        later::routes(),
        metrics::routes(),
        network::routes(),
        node::routes(),
        service::routes(),
        swarm::routes(),
        system::routes(),
        task::routes(),
        volume::routes(),
    ];
    nouns
        .into_iter()
        .fold(Router::new(), Router::merge)
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(app)
}

async fn not_found() -> Failure {
    Failure::not_found("page not found")
}

impl App {
    /// The cluster as of now.
    async fn view(&self) -> Result<View, Failure> {
        self.check_manager()?;
        self.control.read().await
    }

    /// Refuses where this node cannot speak for the cluster (QRM-12).
    fn check_manager(&self) -> Result<(), Failure> {
        let membership = self.control.membership();
        match membership.state {
            _ if membership.manager => Ok(()),
            LocalState::Inactive => Err(Failure::not_in_swarm()),
            LocalState::Pending => {
                Err(Failure::unavailable("This node is still joining a swarm. Try again."))
            }
            LocalState::Active | LocalState::Error => Err(Failure::not_a_manager()),
        }
    }
}

/// A `404` for what was not found, a `400` for what is ambiguous.
impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::NotFound { .. } => Self::not_found(error.to_string()),
            LookupError::Ambiguous { .. } => Self::invalid(error.to_string()),
        }
    }
}

/// Ids are listed as text, so that prefixes can be compared.
fn text(id: Id) -> String {
    id.to_string()
}
