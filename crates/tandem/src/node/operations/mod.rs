//! Talks to operators and programs on behalf of the running node: answers and carries out verbs.
//! In: the questions and verbs of `api::operations`. Out: what this node knows; agreed commands.
//! Keeps: INV-6 a verb names the revision it was made for; what is answered from memory is as old
//! as its facts, and says so (INV-8).
//! Not here: HTTP (`api`), decisions (the core), members and configuration (`members/`).
//! Tested by: `tests/`, with made-up facts.

mod balanced;
mod between;
mod candidates;
mod copies;
mod doctor;
mod explain;
mod members;
mod metrics;
mod moves;
mod propose;
mod refusals;
mod role;
mod seen;
mod status;
#[cfg(test)]
mod tests;
mod verbs;
mod watcher;
mod wishes;

use super::handler::{Local, Operate};
use super::live::Applied;
use super::services::OwnInstances;
use super::services::balancers::Balancers;
use super::services::commands::Driven;
use super::services::copies::CopyServices;
use super::services::leased::LeasedDoors;
use crate::api::explain::{Explanation, Finding, OnePartition};
use crate::api::metrics::MetricsSnapshot;
use crate::api::operations::{Operations, Outcome, PartitionOf, Refused, RunningConfig, Verb};
use crate::api::partitions::Divided;
use crate::api::role::RoleCheck;
use crate::api::status::Status;
use crate::config::Config;
use crate::consensus::Consensus;
use crate::driver::explain::Explanations;
use crate::driver::hub::Hub;
use crate::identity::Identity;
use crate::peers::Mesh;
use crate::proxy::{Door, Snapshot};
use crate::runtime::clock;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::events::{Event, EventLog};
use copies::rounds::Rounds;
use futures::FutureExt;
use futures::future::BoxFuture;
use seen::Seen;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tandem_core::time::Timestamp;
use tokio::sync::{broadcast, watch};

/// What the operations of a node work with.
pub(super) struct Ground {
    pub me: NodeId,
    pub dir: PathBuf,
    pub config: Config,
    pub applied: watch::Receiver<Applied>,
    pub hub: Arc<Hub>,
    pub consensus: Consensus,
    pub mesh: Mesh,
    pub explanations: Arc<Explanations>,
    pub events: EventLog,
    pub supervisor: Supervisor,
    pub doors: Arc<Vec<(ServiceId, Door)>>,
    pub balancers: Arc<Balancers>,
    pub copies: Arc<CopyServices>,
    pub leased: Arc<LeasedDoors>,
    pub instances: OwnInstances,
    pub driven: Arc<Driven>,
    pub identity: Arc<Identity>,
}

/// The operations of this node. Clones share them.
#[derive(Clone)]
pub(super) struct NodeOperations {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Ground,
    started: Timestamp,
    /// The agreed configuration, read once per version.
    config: Mutex<(ConfigVersion, Arc<Config>)>,
    scheduled: Mutex<BTreeMap<ServiceId, moves::schedule::Scheduled>>,
    told_scheduled: Mutex<BTreeMap<ServiceId, moves::schedule::Told>>,
    /// Appointments so far; the agreed history forgets the oldest.
    appointed: Mutex<metrics::Appointments>,
    /// What became of partitions, as the watcher has seen it.
    rounds: Mutex<Rounds>,
}

impl Ground {
    /// Every door that spreads its work, as it is now.
    fn doors_of_endpoints(&self) -> Vec<Snapshot> {
        let mut all = self.balancers.snapshots();
        all.extend(self.copies.snapshots());
        all.extend(self.leased.snapshots());
        all
    }
}

impl std::fmt::Debug for NodeOperations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeOperations").field("me", &self.inner.ground.me).finish_non_exhaustive()
    }
}

impl NodeOperations {
    pub(super) fn new(ground: Ground) -> Self {
        let config = Mutex::new((ConfigVersion(0), Arc::new(ground.config.clone())));
        let inner = Inner {
            ground,
            started: clock::now(),
            config,
            scheduled: Mutex::default(),
            told_scheduled: Mutex::default(),
            appointed: Mutex::default(),
            rounds: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What other nodes ask for their operators.
    pub(super) fn for_peers(&self) -> Operate {
        let operations = self.clone();
        Arc::new(move |verb| {
            let operations = operations.clone();
            async move { operations.asked_by_peer(&verb).await }.boxed()
        })
    }

    /// Wishes for own instances.
    pub(super) fn for_wishes(&self) -> Local {
        let operations = self.clone();
        Arc::new(move |service, wish| {
            let operations = operations.clone();
            async move { operations.wish_here(&service, wish).await }.boxed()
        })
    }

    fn ground(&self) -> &Ground {
        &self.inner.ground
    }

    /// The agreed configuration; until one is agreed, this node's own file.
    fn running_config(&self, version: ConfigVersion, text: &str) -> Arc<Config> {
        let mut kept = self.inner.config.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0 != version {
            // It was read before it was agreed; a later version's keys may not be known here.
            if let Ok(config) = Config::parse(text, "the agreed configuration") {
                kept.1 = Arc::new(config);
            }
            kept.0 = version;
        }
        Arc::clone(&kept.1)
    }

    /// The cluster as this node sees it now.
    fn seen(&self) -> Seen {
        let ground = self.ground();
        let agreed = ground.consensus.state().borrow().state.clone();
        let leadership = ground.consensus.leadership().borrow().clone();
        let trails = |name: &ServiceId| (name.clone(), ground.hub.trails(name));
        Seen {
            me: ground.me.clone(),
            config: self.running_config(agreed.config_version, &agreed.config_text),
            trails: agreed.services.keys().map(trails).collect(),
            agreed,
            leadership,
            facts: ground.hub.everyone(),
            now: clock::now(),
            unix_ms: clock::unix_ms(),
        }
    }

    /// The last plan for the own instance, or of the controller while this node leads.
    fn last_plan(
        &self,
        service: &ServiceId,
        who: &str,
    ) -> Option<crate::driver::explain::Explained> {
        self.ground().explanations.of(service).into_iter().rev().find(|it| it.who == who)
    }
}

impl Operations for NodeOperations {
    fn status(&self) -> Status {
        let seen = self.seen();
        let mut told = status::status(&seen, &|service| self.last_plan(service, "instance"));
        told.waits = self.ground().applied.borrow().waits.clone();
        told.balanced = balanced::all(&seen, &self.ground().doors_of_endpoints());
        for service in &mut told.services {
            service.scheduled = self.scheduled(&service.name);
            let doors = self.ground().doors.clone();
            let own = doors.iter().filter(|(name, _)| *name == service.name);
            let readers = own.flat_map(|(_, door)| door.readers());
            service.readers = readers.map(|it| balanced::upstream(&it)).collect();
        }
        told
    }

    fn events_since(&self, seq: u64) -> Vec<Event> {
        self.ground().events.since(seq)
    }

    fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.ground().events.subscribe()
    }

    fn explain(&self, service: &ServiceId) -> BoxFuture<'static, Option<Explanation>> {
        let (operations, service) = (self.clone(), service.clone());
        async move {
            operations.seen().service(&service)?;
            let plans = operations.plans_everywhere(&service).await;
            let seen = operations.seen();
            let explanation = explain::explain(seen.service(&service)?, plans);
            Some(Explanation { scheduled: operations.scheduled(&service), ..explanation })
        }
        .boxed()
    }

    fn partition(
        &self,
        service: &ServiceId,
        of: PartitionOf,
    ) -> BoxFuture<'static, Result<OnePartition, Refused>> {
        let (operations, service) = (self.clone(), service.clone());
        async move { operations.one_partition(&service, of).await }.boxed()
    }

    fn operate(&self, verb: Verb) -> BoxFuture<'static, Result<Outcome, Refused>> {
        let operations = self.clone();
        async move { verbs::operate(operations, verb).await }.boxed()
    }

    fn role(&self, service: Option<&ServiceId>) -> RoleCheck {
        role::role(&self.seen(), service, &self.ground().hub)
    }

    fn divided(&self, service: &ServiceId) -> Option<Arc<dyn Divided>> {
        let seat = self.ground().driven.seat(service)?;
        Some(seat)
    }

    fn metrics(&self) -> MetricsSnapshot {
        let Inner { ground, started, appointed, rounds, .. } = &*self.inner;
        let mut appointed = appointed.lock().unwrap_or_else(PoisonError::into_inner);
        let rounds = rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.seen();
        appointed.note(&seen);
        metrics::metrics(&seen, *started, ground, (&appointed, &rounds))
    }

    fn doctor(&self) -> BoxFuture<'static, Vec<Finding>> {
        let operations = self.clone();
        async move { operations.examine().await }.boxed()
    }

    fn config(&self) -> RunningConfig {
        let agreed = self.ground().consensus.state().borrow().state.clone();
        RunningConfig { version: agreed.config_version, text: agreed.config_text.clone() }
    }
}
