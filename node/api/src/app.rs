//! What every route can reach.

use std::sync::Arc;

use crate::{control::Control, engine::Engine, events::Hub, execs::Execs, host::Host, server::Limits};

/// The surroundings of the routes; a clone shares them.
#[derive(Clone)]
pub struct App {
    pub control: Arc<dyn Control>,
    pub engine: Arc<dyn Engine>,
    pub host: Arc<Host>,
    pub events: Arc<Hub>,
    pub execs: Arc<Execs>,
    pub limits: Limits,
}
