//! The endpoints of one scope, and the kernel's tables that balance connections over them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Result;
use covey_mesh::{Frontend, Place, Program, Protocol, Virtual, object::Change, plan};
use covey_mesh_netlink::{Conntrack, Nft};
use covey_state::Id;

use super::{
    fault::{self, Fault},
    rows::{Key, Moved, Rows},
};
use crate::endpoint::{Endpoint, Scope};

/// What is balanced in one network namespace.
pub struct Balancer {
    /// What hosts tell.
    pub rows: Rows,
    /// What the tables are to hold.
    pub program: Program,
    nft: Nft,
    conntrack: Conntrack,
    /// Services to be settled.
    touched: BTreeSet<Id>,
    /// Addresses that nobody answers at any more.
    gone: BTreeSet<IpAddr>,
    /// UDP ports that have had nobody behind them, and now have.
    served: BTreeSet<(Protocol, u16)>,
    /// Steps that the kernel has not taken yet.
    steps: Vec<Change>,
    /// The kernel is not where it was thought to be.
    astray: bool,
}

impl Balancer {
    /// In the namespace at `path`; in the host's own without one.
    ///
    /// # Errors
    /// The kernel has no netfilter.
    pub fn open(scope: Scope, path: Option<&Path>, place: Place) -> Result<Self> {
        let (nft, conntrack) = match path {
            Some(path) => (Nft::open_in(path)?, Conntrack::open_in(path)?),
            None => (Nft::open()?, Conntrack::open()?),
        };
        Ok(Self {
            rows: Rows::new(scope),
            program: Program::new(place),
            nft,
            conntrack,
            touched: BTreeSet::new(),
            gone: BTreeSet::new(),
            served: BTreeSet::new(),
            steps: Vec::new(),
            astray: true,
        })
    }

    /// Takes a row; gives back the one before.
    pub fn put(&mut self, key: &Key, row: Option<Endpoint>) -> Option<Endpoint> {
        let service = |row: &Endpoint| row.service.as_ref().map(|service| service.id);
        self.touched.extend(row.as_ref().and_then(service));
        let stays: BTreeSet<IpAddr> = row.iter().flat_map(|row| &row.addresses).copied().collect();
        let before = self.rows.put(key, row);
        self.touched.extend(before.as_ref().and_then(service));
        let gone =
            before.iter().flat_map(|before| &before.addresses).filter(|address| !stays.contains(address));
        self.gone.extend(gone);
        before
    }

    /// A host went down, or came back.
    pub fn suspend(&mut self, owner: Id, down: bool) {
        if !self.rows.suspend(owner, down) {
            return;
        }
        for (_, row) in self.rows.of_owner(owner) {
            self.touched.extend(row.service.as_ref().map(|service| service.id));
            if down {
                self.gone.extend(&row.addresses);
            }
        }
    }

    /// What has moved since the last time.
    pub fn settle(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.touched).into_iter().flat_map(|service| self.rows.settle(service)).collect()
    }

    /// Puts this behind a frontend, with the next [`Balancer::commit`].
    pub fn set(&mut self, frontend: Frontend, behind: Option<Virtual>) {
        let serves = |behind: Option<&Virtual>| behind.is_some_and(|behind| !behind.backends.is_empty());
        if let Frontend::Port { protocol: Protocol::Udp, port, .. } = frontend
            && serves(behind.as_ref())
            && !serves(self.program.services().get(&frontend))
        {
            self.served.insert((Protocol::Udp, port));
        }
        self.steps.extend(self.program.set(frontend, behind));
    }

    /// Changes what there is beside the services, with the next [`Balancer::commit`].
    pub fn set_place(&mut self, place: Place) {
        self.steps.extend(self.program.set_place(place));
    }

    /// Has the kernel take what has changed, then [cuts](Balancer::cut).
    ///
    /// # Errors
    /// The kernel did not take it, or not cut; the next [`Balancer::repair`] mends that.
    pub fn commit(&mut self) -> Result<()> {
        self.commit_tables()?;
        self.cut()
    }

    /// Has the kernel take what has changed.
    ///
    /// # Errors
    /// The kernel did not take it; the next [`Balancer::repair`] mends that.
    pub fn commit_tables(&mut self) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        if self.astray {
            self.repair()?;
        } else if !steps.is_empty()
            && let Err(error) = self.nft.apply(&steps)
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "tables are looked over");
            self.astray = true;
            self.repair()?;
        }
        Ok(())
    }

    /// Cuts connections to whoever is gone, and to nobody. That takes long: all tables come first.
    ///
    /// # Errors
    /// Some are left; they are tried again with the next.
    pub fn cut(&mut self) -> Result<()> {
        if !self.gone.is_empty() {
            self.conntrack.flush(&self.gone)?;
            self.gone.clear();
        }
        if !self.served.is_empty() {
            // Who has sent meanwhile would go on to send to nobody.
            self.conntrack.forget_unserved(&self.served)?;
            self.served.clear();
        }
        Ok(())
    }

    /// Compares the kernel with what is wanted, and mends it; the kinds of objects that were not as wanted.
    ///
    /// # Errors
    /// Something could not be read or mended.
    pub fn repair(&mut self) -> Result<Vec<&'static str>> {
        let observed = self.nft.observe()?;
        self.program.adopt(&observed);
        let changes = plan(&self.program, &observed);
        if !changes.is_empty() {
            tracing::debug!(?changes, "tables are mended");
            self.nft.apply(&changes)?;
        }
        self.steps.clear();
        self.astray = false;
        Ok(changes.iter().map(Change::object).collect())
    }

    /// What is not as wanted, without mending it.
    ///
    /// # Errors
    /// It could not be read.
    pub fn examine(&mut self) -> Result<Vec<Fault>> {
        let observed = self.nft.observe()?;
        Ok(fault::of_tables(&plan(&self.program, &observed), &observed))
    }

    /// What the kernel has behind a frontend.
    ///
    /// # Errors
    /// It could not be asked.
    pub fn lookup(&mut self, frontend: &Frontend) -> Result<Option<Virtual>> {
        Ok(self.nft.lookup(frontend)?)
    }

    /// Who answers a connection.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn answered_by(
        &mut self,
        protocol: Protocol,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Option<SocketAddr>> {
        Ok(self.conntrack.answered_by(protocol, from, to)?)
    }
}
