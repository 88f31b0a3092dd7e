//! The leader's session with one node: hands over what the dispatcher says, one thing after the other, and tells the
//! leader when the node is there and when it is gone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use covey_state::{Id, assignment::AssignmentSet, node::NodeDescription};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    exchange::exchange,
    member::Member,
    protocol::{Assign, Assigned, Roster, Taken, kind},
    serve,
};

/// Orders that wait for a node; one that is so far behind starts again with a full set.
const ORDERS_MAX: usize = 256;
/// How long a node may take to take what is handed to it.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A node that a new leader has not reached for so long counts as gone.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Waits between attempts to reach a node that is gone.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What a node is to be handed.
#[derive(Debug)]
pub enum Order {
    /// Work.
    Set(AssignmentSet),
    /// News of nodes.
    Roster(Roster),
    /// Find out anew whether it is there.
    Again,
}

/// What a session tells the leader.
#[derive(Debug)]
pub enum Report {
    /// The node answers: it is to be handed everything.
    Connected {
        /// Which.
        node: Id,
        /// What it says of itself.
        description: NodeDescription,
    },
    /// The node lacks what the last changes build on.
    NeedFull {
        /// Which.
        node: Id,
    },
    /// The node does not answer.
    Gone {
        /// Which.
        node: Id,
    },
}

/// The leader's end of a session; dropping it ends the session.
pub struct Session {
    orders: mpsc::Sender<Order>,
    address: watch::Sender<SocketAddr>,
    task: AbortOnDropHandle<()>,
}

impl Session {
    /// Begins a session with a node; reports come by `reports`.
    pub fn begin(member: Arc<Member>, node: Id, address: SocketAddr, reports: mpsc::Sender<Report>) -> Self {
        let (orders, waiting) = mpsc::channel(ORDERS_MAX);
        let (address, whereabouts) = watch::channel(address);
        let work = Work { member, node, address: whereabouts, orders: waiting, reports };
        Self { orders, address, task: AbortOnDropHandle::new(tokio::spawn(work.run())) }
    }

    /// Hands over an order; false where the node is too far behind to take more.
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Ends the session once the node was handed what waits for it, or does not take it in time.
    pub fn finish(self, member: &Member) {
        drop(self.orders);
        member.spawn(async move {
            // Either way it is over.
            let _ = timeout(ANSWER_MAX, self.task).await;
        });
    }

    /// The node is to be found elsewhere.
    pub fn moved(&self, address: SocketAddr) {
        self.address.send_replace(address);
    }
}

struct Work {
    member: Arc<Member>,
    node: Id,
    address: watch::Receiver<SocketAddr>,
    orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
}

impl Work {
    async fn run(mut self) {
        let mut wait = RETRY_MIN;
        loop {
            let Some(description) = self.reach().await else { return };
            let begun = Instant::now();
            // Orders of before are part of the full set that follows.
            while self.orders.try_recv().is_ok() {}
            if self.reports.send(Report::Connected { node: self.node, description }).await.is_err() {
                return;
            }
            if let Err(error) = self.serve().await {
                tracing::debug!(node = %self.node, error = format!("{error:#}"), "session lost");
            } else {
                return;
            }
            if self.reports.send(Report::Gone { node: self.node }).await.is_err() {
                return;
            }
            // A node that answers but cannot take its work must not be asked in a circle.
            wait = if begun.elapsed() < RETRY_MAX { (wait * 2).min(RETRY_MAX) } else { RETRY_MIN };
            sleep(wait).await;
        }
    }

    /// Tries until the node answers.
    async fn reach(&mut self) -> Option<NodeDescription> {
        let begun = Instant::now();
        let mut wait = RETRY_MIN;
        let mut told = false;
        loop {
            match self.hand_over(Assign { set: None, roster: None }).await {
                Ok(Assigned { description: Some(description), .. }) => return Some(description),
                Ok(Assigned { description: None, .. }) => {}
                Err(error) => tracing::trace!(node = %self.node, error = format!("{error:#}"), "not reached"),
            }
            // News for a leader that has never seen the node; one that has was told already.
            if !told && begun.elapsed() >= SILENT_MAX {
                told = true;
                self.reports.send(Report::Gone { node: self.node }).await.ok()?;
            }
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.address.changed() => changed.ok()?,
                // Whatever it is, somebody thinks that the node is there.
                order = self.orders.recv() => { order?; }
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Hands over orders until one cannot be; `Ok` when the leader has ended the session.
    async fn serve(&mut self) -> Result<()> {
        while let Some(order) = self.orders.recv().await {
            let assign = match order {
                Order::Set(set) => Assign { set: Some(set), roster: None },
                Order::Roster(roster) => Assign { set: None, roster: Some(roster) },
                Order::Again => anyhow::bail!("its silence was noticed elsewhere"),
            };
            match self.hand_over(assign).await?.taken {
                Taken::Yes => {}
                Taken::NeedFull { .. } => {
                    if self.reports.send(Report::NeedFull { node: self.node }).await.is_err() {
                        return Ok(());
                    }
                }
                Taken::Old { have } => anyhow::bail!("it follows a newer leader ({have:?})"),
            }
        }
        Ok(())
    }

    async fn hand_over(&self, assign: Assign) -> Result<Assigned> {
        if self.node == self.member.id() {
            return serve::take(&self.member, assign).await;
        }
        let address = *self.address.borrow();
        ask(&self.member, self.node, address, &assign).await
    }
}

/// Hands something over to a node, once.
///
/// # Errors
/// It was not taken, or nobody knows.
pub async fn ask(member: &Member, node: Id, address: SocketAddr, assign: &Assign) -> Result<Assigned> {
    // A leader of many nodes waits here for a place, which is not the node's fault.
    let stream = member.endpoint.open(node, address, kind::ASSIGN).await?;
    timeout(ANSWER_MAX, exchange(stream, assign)).await?
}
