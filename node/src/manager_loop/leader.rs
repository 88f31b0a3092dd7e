//! A leader, for the time that it leads: it plans, proposes, and hands out work.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use covey_manager::{
    Dispatcher, Notice, Observed, Scope,
    dispatcher::Output,
    membership::plan_membership,
    observed::{Liveness, Session as Seen},
    plan,
};
use covey_raft::{Change, ProposeError};
use covey_state::{
    Id, Store,
    command::{Command, Proposal, Refusal},
    event::Event,
    node::NodeDescription,
    time::Stamp,
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{RETRY, membership};
use crate::{
    clock,
    member::{Log, Member},
    roster,
    session::{Order, Report, Session},
    sight::News,
    translate,
};

/// Reports of sessions that wait for the leader.
const REPORTS_MAX: usize = 1024;
/// Everything is planned again this often, whatever happened.
const FULL_PLAN_EVERY: Duration = Duration::from_secs(60);
/// Raft's members are looked over this often.
const MEMBERS_EVERY: Duration = Duration::from_secs(1);

/// What a leader has for that time.
pub struct Leader<'a> {
    member: Arc<Member>,
    log: Log,
    observed: Observed,
    dispatcher: &'a mut Dispatcher,
    sessions: BTreeMap<Id, Session>,
    /// Whose session stands.
    connected: BTreeSet<Id>,
    reports: mpsc::Sender<Report>,
    /// To be planned.
    scope: Scope,
    /// To be planned with whatever is planned next.
    waiting: Scope,
    look_again_at: Option<Stamp>,
    /// What the last plan had to say.
    told: Vec<String>,
    /// Changes of Raft's members.
    changes: membership::Changes,
    rng: StdRng,
}

impl<'a> Leader<'a> {
    /// Leads until it is dropped, or until the log ends.
    pub async fn run(member: Arc<Member>, log: Log, dispatcher: &'a mut Dispatcher) {
        // A leader may still lack what the one before it had decided.
        while let Err(error) = log.read().await {
            tracing::debug!(%error, "not ready to lead yet");
            sleep(RETRY).await;
        }
        let mut changes = log.changes();
        let (reports, mut reported) = mpsc::channel(REPORTS_MAX);
        member.log_clock.catch_up(log.store().last_at());
        let mut leader = Self {
            observed: Observed::new(member.log_clock.now()),
            dispatcher,
            sessions: BTreeMap::new(),
            connected: BTreeSet::new(),
            reports,
            scope: Scope::All,
            waiting: Scope::default(),
            look_again_at: None,
            told: Vec::new(),
            changes: membership::Changes::default(),
            rng: StdRng::from_seed(clock::random()),
            member,
            log,
        };
        leader.look_around();
        let mut full_plan = interval(FULL_PLAN_EVERY);
        full_plan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut members = interval(MEMBERS_EVERY);
        members.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sight = leader.member.sight.clone();
        loop {
            leader.plan_if_due().await;
            leader.change_members_if_due().await;
            let due = leader.look_again_at.map(|at| clock::monotonic() + at.since(leader.now()));
            tokio::select! {
                change = changes.next() => match change {
                    Some(Change::Applied(applied)) => leader.handle_events(&applied.events),
                    Some(Change::Everything) => leader.look_around(),
                    None => return,
                },
                news = sight.news() => leader.handle_news(news),
                Some(report) = reported.recv() => leader.handle_report(report).await,
                () = leader.changes.ended() => {}
                _ = members.tick() => leader.changes.look_again(),
                _ = full_plan.tick() => leader.scope = Scope::All,
                () = clock::until(due) => {}
            }
        }
    }

    /// The time of the log goes on from where it was, also where this node's clock is behind.
    fn now(&self) -> Stamp {
        self.member.log_clock.now()
    }

    fn liveness(&self, (liveness, since): (covey_gossip::Liveness, Stamp)) -> Liveness {
        translate::liveness((liveness, since + self.member.log_clock.ahead()))
    }

    /// Reads everything anew: at the beginning, and after more has changed than was told.
    fn look_around(&mut self) {
        let store = self.log.store();
        for (node, heard) in self.member.sight.nodes() {
            self.observed.handle_liveness(node, self.liveness(heard));
        }
        // SWIM does not tell a node of itself.
        self.observed.handle_liveness(self.member.id(), Liveness::Alive);
        for (task, status) in self.member.sight.tasks(&store) {
            self.observed.handle_task(task, status);
        }
        self.let_go(&store);
        self.attend(&store);
        for node in self.connected.clone() {
            self.hand_everything(&store, node);
        }
        self.scope = Scope::All;
    }

    /// A session for each node; those of others end by [`Leader::let_go`].
    fn attend(&mut self, store: &Store) {
        let wanted: BTreeMap<Id, _> =
            store.nodes().filter(|node| !node.left).map(|node| (node.id, node.address)).collect();
        for (id, address) in &wanted {
            match self.sessions.get(id) {
                Some(session) => session.moved(*address),
                None => {
                    let session = Session::begin(self.member.clone(), *id, *address, self.reports.clone());
                    self.sessions.insert(*id, session);
                }
            }
        }
        self.member.lead(wanted);
    }

    fn handle_events(&mut self, events: &[Event]) {
        let store = self.log.store();
        self.scope.merge(Scope::from_events(events));
        let outputs = self.dispatcher.handle_changes(&store, events);
        self.send(outputs);
        if let Some(roster) = roster::changes(&store, events) {
            // Whoever is gone is told so, too: its session ends after that.
            for node in self.connected.clone() {
                self.order(node, Order::Roster(roster.clone()));
            }
            self.let_go(&store);
            self.attend(&store);
            self.changes.look_again();
        }
    }

    /// Sessions of nodes that are none any more end, once each was handed the news of it.
    fn let_go(&mut self, store: &Store) {
        let gone = |id: &Id| store.node(*id).is_none_or(|node| node.left);
        let gone: Vec<Id> = self.sessions.keys().copied().filter(gone).collect();
        for id in gone {
            self.connected.remove(&id);
            self.dispatcher.handle_disconnected(id);
            if store.node(id).is_none() {
                self.observed.forget_node(id);
            }
            if let Some(session) = self.sessions.remove(&id) {
                session.finish(&self.member);
            }
        }
    }

    fn handle_news(&mut self, news: News) {
        let store = self.log.store();
        for id in news.nodes {
            let Some(heard) = self.member.sight.node(id) else { continue };
            if self.observed.handle_liveness(id, self.liveness(heard)) {
                self.scope.add_node(id);
            }
            // SWIM's word is checked by the leader's own.
            if heard.0.is_live() != self.connected.contains(&id) {
                self.look_again(id);
            }
        }
        for id in news.lost {
            self.look_again(id);
        }
        for id in news.tasks {
            let node = store.task(id).and_then(|task| task.node);
            match node.and_then(|node| self.member.sight.task(id, node)) {
                Some(status) => {
                    if self.observed.handle_task(id, status) {
                        self.scope.add_task(id);
                    }
                }
                None => self.observed.forget_task(id),
            }
        }
    }

    /// A node's session is in doubt, until it answers again.
    fn look_again(&mut self, node: Id) {
        self.handle_gone(node);
        self.order(node, Order::Again);
    }

    fn handle_gone(&mut self, node: Id) {
        self.connected.remove(&node);
        self.dispatcher.handle_disconnected(node);
        if self.observed.handle_session(node, Seen::Gone { since: self.now() }) {
            self.scope.add_node(node);
        }
    }

    async fn handle_report(&mut self, report: Report) {
        let store = self.log.store();
        match report {
            Report::Gone { node } => self.handle_gone(node),
            Report::NeedFull { node } => self.hand_everything(&store, node),
            Report::Connected { node, description } => {
                self.connected.insert(node);
                self.hand_everything(&store, node);
                if self.observed.handle_session(node, Seen::Connected) {
                    self.scope.add_node(node);
                }
                self.describe(&store, node, description).await;
            }
        }
    }

    fn hand_everything(&mut self, store: &Store, node: Id) {
        self.order(node, Order::Roster(roster::full(store)));
        let outputs = self.dispatcher.handle_connected(store, node);
        self.send(outputs);
    }

    async fn describe(&mut self, store: &Store, id: Id, description: NodeDescription) {
        let Some(node) = store.node(id).filter(|node| node.description != description) else { return };
        let describe = Command::DescribeNode { id, description, address: node.address };
        self.propose(Proposal { planned_at: None, commands: vec![describe] }).await;
    }

    fn send(&mut self, outputs: Vec<Output>) {
        for Output { node, set } in outputs {
            self.order(node, Order::Set(set));
        }
    }

    fn order(&mut self, node: Id, order: Order) {
        let Some(session) = self.sessions.get(&node) else { return };
        if !session.order(order) {
            // Too far behind: it starts again, with everything.
            tracing::warn!(%node, "the node does not keep up; its session starts again");
            self.handle_gone(node);
            self.sessions.remove(&node);
            self.attend(&self.log.store());
        }
    }

    async fn plan_if_due(&mut self) {
        let due = self.look_again_at.is_some_and(|at| at <= self.now());
        if self.scope.is_empty() && !due {
            return;
        }
        let mut scope = std::mem::take(&mut self.scope);
        scope.merge(std::mem::take(&mut self.waiting));
        let plan = plan(&self.log.store(), &self.observed, &scope, self.now(), &mut self.rng);
        self.look_again_at = plan.look_again_at;
        self.waiting = plan.waiting;
        self.tell(&plan.notices);
        if let Some(proposal) = plan.proposal
            && !self.propose(proposal).await
        {
            self.scope.merge(scope);
        }
    }

    /// Says what is new to say.
    fn tell(&mut self, notices: &[Notice]) {
        let notices: Vec<String> = notices.iter().map(ToString::to_string).collect();
        for notice in notices.iter().filter(|notice| !self.told.contains(notice)) {
            tracing::warn!("{notice}");
        }
        self.told = notices;
    }

    /// True where the log took it.
    async fn propose(&mut self, proposal: Proposal) -> bool {
        match self.log.propose(&proposal).await {
            Ok(_) => true,
            // The store has moved on: what moved it is on its way here as events.
            Err(ProposeError::Refused(Refusal::Stale)) => false,
            Err(error) => {
                tracing::warn!(%error, "a plan was not taken");
                sleep(RETRY).await;
                false
            }
        }
    }

    /// One step towards the managers that the roles of nodes ask for.
    async fn change_members_if_due(&mut self) {
        if !self.changes.take_due() {
            return;
        }
        let plan = plan_membership(&self.log.store(), &membership::seen(&self.log, self.member.id()));
        if let Some(proposal) = plan.proposal {
            self.propose(proposal).await;
        }
        let log = self.log.clone();
        if let Some(change) = plan.change {
            self.changes.begin(membership::change(log, change));
        } else if let Some((id, address)) = membership::moved(&log) {
            self.changes.begin(membership::move_to(log, id, address));
        }
    }
}
