//! How a network leaves this host: a moment after the last who was in it.

use std::time::{Duration, Instant};

use anyhow::Result;
use covey_state::network::NetworkConfig;
use covey_wire::Id;

use super::{Carrier, Keeper};
use crate::clock;

/// Its router stays for so long: as long as other hosts have not heard, it tells their clients that nobody is there any
/// more. What comes for a network that is not here vanishes, and a client that waits for an answer waits a second.
const PART_AFTER: Duration = Duration::from_secs(1);

impl Keeper {
    /// Lets a network go that nobody here is in, soon; at once, if it is this host's alone.
    pub(super) fn part_soon(&mut self, network: Id) -> Result<()> {
        match self.carriers.get(&network) {
            Some(carrier) if carrier.is_empty() && carrier.config.is_overlay() => {
                self.parting.insert(network, clock::monotonic() + PART_AFTER);
                Ok(())
            }
            _ => self.drop_if_empty(network),
        }
    }

    /// Lets networks go that were to go soon: those of which this is true.
    pub(super) fn part(&mut self, is_due: impl Fn(&Carrier, Instant) -> bool) {
        let due = |(id, at): (&Id, &Instant)| {
            self.carriers.get(id).is_none_or(|carrier| is_due(carrier, *at)).then_some(*id)
        };
        for network in self.parting.iter().filter_map(due).collect::<Vec<_>>() {
            if let Err(error) = self.drop_if_empty(network) {
                tracing::warn!(%network, error = format!("{error:#}"), "a network is not all gone");
            }
        }
    }

    /// Whoever had an identifier of this network before is gone from the cluster: the kernel knows each once.
    pub(super) fn make_way_for(&mut self, config: &NetworkConfig) {
        let has = |vni| config.subnets.iter().any(|subnet| subnet.vni == Some(vni));
        self.part(|carrier, _| carrier.vnis().any(has));
    }

    /// Lets a network go that nobody here is in.
    fn drop_if_empty(&mut self, network: Id) -> Result<()> {
        self.parting.remove(&network);
        if !self.carriers.get(&network).is_some_and(Carrier::is_empty) {
            return Ok(());
        }
        let Some(carrier) = self.carriers.remove(&network) else { return Ok(()) };
        self.tell_carried();
        let is_overlay = carrier.config.is_overlay();
        let removed = carrier.remove();
        if is_overlay {
            self.join();
        }
        removed
    }
}
