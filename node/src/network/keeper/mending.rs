//! What is due by the clock: above all, the kernel is compared with what is wanted.

use std::time::Duration;

use anyhow::Result;
use covey_state::Id;

use super::{Carrier, Keeper, Wired};
use crate::{
    clock,
    network::{
        fault::{Fault, RESOLVER},
        resolver,
    },
};

/// Connections to whoever is gone are cut this long after: that takes the kernel long, and what is told in the same
/// moment, as of one task in each of its networks, is not to wait for it.
const CUT_AFTER: Duration = Duration::from_millis(10);

impl Wired {
    /// Sees to it that the container's questions reach its resolver, where it has networks with names; the kinds of
    /// objects that were not as wanted.
    fn repair(&self) -> Result<Vec<&'static str>> {
        match &self.resolver {
            Some(served) if !self.wiring.networks.is_empty() && served.lead_here()? => Ok(vec![RESOLVER]),
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the container's questions in this network do not reach its resolver.
    fn is_astray(&self, network: Id) -> Result<bool> {
        let is_in = self.wiring.networks.iter().any(|attached| attached.network.id == network);
        match &self.resolver {
            Some(served) if is_in => Ok(!served.is_led_here()?),
            _ => Ok(false),
        }
    }
}

impl Keeper {
    /// Has the kernel take what was told.
    pub(super) fn settle_all(&mut self) {
        if !self.begun {
            return;
        }
        let edge = self.edge.settle();
        let networks = self.carriers.values_mut().map(Carrier::settle);
        let settled: Vec<Result<()>> = std::iter::once(edge).chain(networks).collect();
        settled.into_iter().for_each(|settled| self.mend_soon(settled));
        self.cut_at.get_or_insert_with(|| clock::monotonic() + CUT_AFTER);
    }

    /// Cuts connections to whoever is gone, and forgets what became of their packets.
    fn cut(&mut self) {
        self.cut_at = None;
        let networks = self.carriers.values_mut().map(|carrier| carrier.balancer.cut());
        let cut: Vec<Result<()>> = std::iter::once(self.edge.balancer.cut()).chain(networks).collect();
        cut.into_iter().for_each(|cut| self.mend_soon(cut));
        self.forget_flows();
    }

    /// Once something has changed, what became of packets before it says nothing of those that follow: what was cut must
    /// not go on.
    pub(super) fn forget_flows(&mut self) {
        let forgotten = self.cache.as_ref().map_or(Ok(()), |cache| cache.forget());
        self.mend_soon(forgotten.map_err(Into::into));
    }

    /// What the kernel did not take is mended as soon as all that has come in is done.
    pub(super) fn mend_soon(&mut self, taken: Result<()>) {
        if let Err(error) = taken {
            tracing::warn!(
                error = format!("{error:#}"),
                "the kernel did not take a change; it is mended soon"
            );
            self.repair_at = clock::monotonic();
        }
    }

    /// Does what is due.
    pub(super) fn look_at_clock(&mut self) {
        let now = clock::monotonic();
        if self.remember_at.is_some_and(|at| at <= now) {
            self.remember();
        }
        if self.cut_at.is_some_and(|at| at <= now) {
            self.cut();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_refused();
        }
        self.close_names(|_, at| at <= now);
        self.part(|_, at| at <= now);
        if self.begun {
            self.forget_unconfirmed(now);
        }
        if self.repair_at <= now {
            self.repair_at = now + self.repair_every;
            if self.begun {
                self.repair();
                self.follow_host();
            }
        }
    }

    /// Compares the kernel with what is wanted, mends it, and counts what was not as it should be.
    pub fn repair(&mut self) {
        let edge = self.edge.repair();
        let networks: Vec<_> = self.carriers.values_mut().map(Carrier::repair).collect();
        let resolvers: Vec<_> = self.containers.values().map(Wired::repair).collect();
        let mut is_mended = false;
        for mended in std::iter::once(edge).chain(networks).chain(resolvers) {
            match mended {
                Ok(objects) => {
                    if !objects.is_empty() {
                        is_mended = true;
                        tracing::info!(?objects, "the kernel was not as it should be, and is again");
                    }
                    objects.into_iter().for_each(|object| *self.drift.entry(object).or_default() += 1);
                }
                Err(error) => tracing::warn!(error = format!("{error:#}"), "a network could not be mended"),
            }
        }
        if is_mended {
            self.repairs += 1;
            self.forget_flows();
        }
    }

    /// The resolvers of a network's containers that are not as wanted, without mending them.
    ///
    /// # Errors
    /// One could not be looked at.
    pub fn examine_resolvers(&self, network: Id) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for (container, wired) in &self.containers {
            if wired.is_astray(network)? {
                let text = "nothing leads to it, or something else".to_owned();
                faults.push(Fault { object: format!("{RESOLVER} of container {container:.12}"), text });
            }
        }
        Ok(faults)
    }

    /// The servers that this host asks may have changed, as when it goes to another network: its containers ask the same.
    fn follow_host(&self) {
        let Some(servers) = resolver::hosts_own() else { return };
        for wired in self.containers.values() {
            if wired.wiring.edge
                && wired.wiring.nameservers.is_empty()
                && let Some(resolver) = &wired.resolver
            {
                resolver.ask(&servers);
            }
        }
    }
}
