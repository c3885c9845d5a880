//! Carries the agreed configuration out on this node while it runs: peers, settings, routes, doors.
//! In: what is agreed, who takes part. Out: `Applied`, told to the others too.
//! States: member → (the configuration and Raft have no place for it) removed → (its copies have
//! stopped) gone: the process ends.
//! Whom it talks to is whom the configuration names and whom Raft counts: a node that is being
//! added catches up before it is in the configuration, one that is removed hears of it after.
//! Keeps: H48 a removed node is told, stops, and is talked to no more; H41 a configuration counts
//! as applied when the servers have loaded it, not when it was agreed.
//! Not here: whether it may be applied (`operations/members`), the instances (`driver/instance`).
//! Tested by: `tests/members`.

mod ended;

use super::agreed::{self, Kept};
use super::services::commands::Driven;
use super::services::fronts::Fronts;
use super::services::{self, Place, Places};
use super::{Ground, Route};
use crate::config::{self, Config};
use crate::consensus::{Agreed, Consensus, Leadership};
use crate::driver::heartbeat;
use crate::driver::hub::Hub;
use crate::driver::instance::leaving::Reconfigured;
use crate::peers::Mesh;
use crate::proxy::Door;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::cluster::state::ClusterState;
use tandem_core::facts::{Data, InstanceFacts, Process};
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tandem_core::time::Observed;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Who left is still talked to for this long: it shall hear that it was removed (H48).
const FAREWELL: Duration = Duration::from_secs(2);
/// Removed for this long is removed: a node that reads an old log sees itself come and go.
const REMOVED_AFTER: Duration = Duration::from_secs(3);
/// What did not work is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// For one instance to load its settings.
const LOADED: Duration = Duration::from_secs(10);
/// Whether this node is still known, which no event tells.
const LOOK: Duration = Duration::from_secs(1);
const DOOR_GRACE: Duration = Duration::from_millis(500);

/// How far this node has carried the agreed configuration out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// The last version of which nothing waits.
    pub version: ConfigVersion,
    /// What waits, and for what.
    pub waits: Vec<String>,
    /// This node is no member any more.
    pub removed: bool,
}

/// What is changed.
pub(super) struct Hands {
    pub mesh: Mesh,
    pub consensus: Consensus,
    pub places: Places,
    pub doors: Arc<Vec<(ServiceId, Door)>>,
    pub fronts: Fronts,
    pub driven: Arc<Driven>,
}

/// The task.
pub(super) struct Live {
    ground: Arc<Ground>,
    hands: Hands,
    /// As far as it was read, applied or not.
    config: Arc<Config>,
    version: ConfigVersion,
    /// What the next start begins with, all of which was carried out here.
    kept: ConfigVersion,
    peers: BTreeMap<NodeId, String>,
    every: Duration,
    beats: BTreeMap<NodeId, CancellationToken>,
    left: BTreeMap<NodeId, (String, Instant)>,
    closed: BTreeSet<ServiceId>,
    removed_since: Option<Instant>,
    again: Option<Instant>,
    applied: watch::Sender<Applied>,
    gone: CancellationToken,
}

impl Live {
    pub(super) fn new(ground: Arc<Ground>, hands: Hands) -> Self {
        let applied = Applied { version: ground.version, ..Applied::default() };
        Self {
            config: Arc::new(ground.config.clone()),
            version: ground.version,
            kept: ground.version,
            ground,
            hands,
            peers: BTreeMap::new(),
            every: Duration::ZERO,
            beats: BTreeMap::new(),
            left: BTreeMap::new(),
            closed: BTreeSet::new(),
            removed_since: None,
            again: None,
            applied: watch::Sender::new(applied),
            gone: CancellationToken::new(),
        }
    }

    /// Cancelled when this node was removed and none of its copies works any more.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    pub(super) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.subscribe()
    }

    /// Carries out until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut agreed = self.hands.consensus.state();
        let mut leadership = self.hands.consensus.leadership();
        loop {
            let now = agreed.borrow_and_update().clone();
            let lead = leadership.borrow_and_update().clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.follow(&now, &lead) => {}
            }
            let due = self.due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                result = agreed.changed() => if result.is_err() { return },
                result = leadership.changed() => if result.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// When to look again though nothing changed.
    fn due(&self) -> Option<Instant> {
        let farewell = self.left.values().map(|(_, until)| *until).min();
        let removed = self.removed_since.map(|since| since + REMOVED_AFTER);
        let removed = removed.filter(|_| !self.applied.borrow().removed);
        let look = (self.version > ConfigVersion(0)).then(|| Instant::now() + LOOK);
        [farewell, removed, self.again, look].into_iter().flatten().min()
    }

    async fn follow(&mut self, now: &Agreed, leadership: &Leadership) {
        let state = &now.state;
        let is_new = state.cluster.is_some() && state.config_version != self.version;
        if is_new {
            match Config::parse(&state.config_text, "the agreed configuration") {
                Ok(config) => self.config = Arc::new(config),
                Err(_) => {
                    // Agreed by a newer release: what this one knows goes on.
                    let waits = vec!["this release cannot read the agreed configuration".into()];
                    self.applied.send_modify(|applied| applied.waits = waits);
                    return;
                }
            }
            self.version = state.config_version;
        }
        let listed = self.config.nodes.contains_key(&self.ground.args.node);
        let left = !listed && leadership.removed;
        let removed = state.cluster.is_some() && (left || self.is_stranger(leadership));
        self.removed_since = removed.then(|| self.removed_since.unwrap_or_else(Instant::now));
        self.meet(leadership);
        let is_due = self.again.is_some_and(|again| again <= Instant::now())
            || (self.again.is_none() && self.hands.driven.lacks(&self.config));
        if listed && state.cluster.is_some() && (is_new || is_due) {
            self.apply(state).await;
        }
        self.tell_what_ended(state);
        self.close_doors(state.services.keys().cloned().collect()).await;
        let part = self.removed_since.is_some_and(|since| since.elapsed() >= REMOVED_AFTER);
        if part && !self.applied.borrow().removed {
            self.part().await;
            self.meet(leadership);
        }
        let removed_for = self.removed_since.map(|since| since.elapsed());
        if self.applied.borrow().removed && self.has_stopped(removed_for.unwrap_or_default()) {
            self.gone.cancel();
        }
    }

    /// Whether no copy of this node works.
    fn has_stopped(&self, removed_for: Duration) -> bool {
        let everyone = self.ground.hub.everyone();
        let own = everyone.get(&self.ground.args.node).map(Observed::last_known);
        own.is_none_or(|facts| facts.instances.values().all(|it| works_no_more(it, removed_for)))
    }

    /// Whether most of those that this node takes for other voters do not know it: it was removed
    /// while it was away, and nobody sends it what was agreed since.
    fn is_stranger(&self, leadership: &Leadership) -> bool {
        let voters = &leadership.voters;
        let strange = voters.iter().filter(|it| self.hands.mesh.is_stranger_to(it)).count();
        let others = voters.iter().filter(|it| **it != self.ground.args.node).count();
        strange > 0 && strange * 2 > others
    }

    /// Talks to whom the configuration and Raft name, and to nobody else.
    fn meet(&mut self, leadership: &Leadership) {
        let me = &self.ground.args.node;
        let dial = |peer: &NodeId, address: &str| {
            let route: Option<&Route> = self.ground.routes.get(peer);
            route.and_then(|route| route.peer.clone()).unwrap_or_else(|| address.to_owned())
        };
        let mut peers: BTreeMap<NodeId, String> = BTreeMap::new();
        for (node, address) in &leadership.addresses {
            peers.insert(node.clone(), dial(node, address));
        }
        for (node, it) in &self.config.nodes {
            peers.insert(node.clone(), dial(node, &it.address.to_string()));
        }
        peers.remove(me);
        if self.applied.borrow().removed {
            peers.clear();
        }
        let now = Instant::now();
        for (node, address) in self.peers.iter().filter(|(node, _)| !peers.contains_key(*node)) {
            let farewell = (address.clone(), now + FAREWELL);
            self.left.entry(node.clone()).or_insert(farewell);
        }
        self.left.retain(|node, (_, until)| *until > now && !peers.contains_key(node));
        for (node, (address, _)) in &self.left {
            peers.insert(node.clone(), address.clone());
        }
        let databases = self.config.services.values().map(|service| service.timing);
        let commands = self.config.commands.values().map(|command| command.timing);
        let intervals = databases.chain(commands).map(|timing| timing.heartbeat);
        let every = intervals.min().unwrap_or(Duration::from_millis(100));
        if self.peers == peers && self.every == every {
            return;
        }
        if self.every != every {
            self.beats.values().for_each(CancellationToken::cancel);
            self.beats.clear();
        }
        self.every = every;
        self.ground.hub.expect_every(every);
        for node in peers.keys() {
            self.ground.hub.expect(node);
        }
        self.ground.hub.forget(&|node| node == me || peers.contains_key(node));
        self.hands.mesh.set_peers(peers.clone());
        self.peers = peers;
        self.beat();
    }

    /// One exchange of heartbeats with each peer.
    fn beat(&mut self) {
        self.beats.retain(|node, stop| {
            let stays = self.peers.contains_key(node);
            if !stays {
                stop.cancel();
            }
            stays
        });
        let every = self.every;
        let (hub, mesh): (&Arc<Hub>, &Mesh) = (&self.ground.hub, &self.hands.mesh);
        for peer in self.peers.keys() {
            if self.beats.contains_key(peer) {
                continue;
            }
            let stop = self.ground.supervisor.stopping().child_token();
            let exchange =
                heartbeat::exchange(hub.clone(), mesh.clone(), peer.clone(), every, stop.clone());
            self.ground.supervisor.spawn("heartbeat", TaskKind::Session, exchange);
            self.beats.insert(peer.clone(), stop);
        }
    }

    /// Carries a configuration out that has a place for this node.
    async fn apply(&mut self, state: &ClusterState) {
        let mut waits = Vec::new();
        for (service, door) in self.hands.doors.iter() {
            if let Some(own) = self.config.services.get(service) {
                door.spread_by(own.read_policy);
            }
        }
        for (service, place) in &self.hands.places {
            if let Err(because) = self.settle(service, place).await {
                waits.push(format!("{service}: {because}"));
            }
        }
        let Hands { consensus, fronts, driven, .. } = &self.hands;
        let (config, agreed) = ((self.version, &*self.config), consensus.state());
        // First, by which doors find copies.
        let ports = self.ground.ports.follow((self.version, &self.config), state);
        driven.give_way(&self.config).await;
        waits.extend(fronts.follow(config, &agreed).await);
        waits.extend(driven.follow(&self.config));
        self.again = (!waits.is_empty()).then(|| Instant::now() + AGAIN);
        let me = &self.ground.args.node;
        let restart = config::daemon_restart(&self.ground.config, &self.config, me);
        waits.extend(restart.into_iter().map(|problem| problem.what).chain(ports));
        let begins = self.closed.iter().filter(|it| self.config.services.contains_key(*it));
        waits.extend(begins.map(|it| format!("{it} begins again after a restart of the daemon")));
        if waits.is_empty() {
            tracing::info!(version = %self.version, "the configuration is applied");
        } else {
            tracing::warn!(version = %self.version, ?waits, "parts of the configuration wait");
        }
        let version = if waits.is_empty() { self.version } else { self.applied.borrow().version };
        self.applied.send_replace(Applied { version, waits, removed: false });
        self.keep();
    }

    /// Tells one service's instance and doors what is new.
    async fn settle(&self, service: &ServiceId, place: &Place) -> Result<(), String> {
        let Some(own) = self.config.services.get(service) else { return Ok(()) };
        let addresses = services::addresses(&self.ground, &self.config, service);
        place.addresses.send_if_modified(|old| {
            let is_new = *old != addresses;
            *old = addresses;
            is_new
        });
        place.lag_max.send_replace(services::lag_max(own));
        let Some(configs) = &place.configs else { return Ok(()) };
        let config = services::instance_config(&self.ground, &self.config, (service, own)).await;
        let config = config.map_err(|error| error.to_string())?;
        let (answer, answered) = oneshot::channel();
        configs
            .send(Reconfigured { config: Some(config), answer })
            .await
            .map_err(|_| "it stops".to_owned())?;
        match timeout(LOADED, answered).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err("it stops".to_owned()),
            Err(_) => Err("its server did not load the settings in time".to_owned()),
        }
    }

    /// What the next start begins with.
    fn keep(&mut self) {
        let kept = Kept { version: self.version, text: self.config.text.clone() };
        if let Err(error) = agreed::store(&self.ground.args.dir, &kept) {
            tracing::error!(%error, "the agreed configuration cannot be kept in the node's folder");
            self.again = Some(Instant::now() + AGAIN);
            return;
        }
        self.kept = self.version;
    }

    /// A service that ended takes no clients.
    async fn close_doors(&mut self, services: BTreeSet<ServiceId>) {
        if self.version == ConfigVersion(0) {
            return;
        }
        for (service, door) in self.hands.doors.iter() {
            if !services.contains(service) && !self.closed.contains(service) {
                door.close(DOOR_GRACE).await;
            }
        }
        let all = self.hands.doors.iter().map(|(service, _)| service);
        let ended: BTreeSet<_> = all.filter(|it| !services.contains(*it)).cloned().collect();
        self.closed.extend(ended);
    }

    /// This node was removed: nothing of it serves from now on, after a restart neither.
    async fn part(&mut self) {
        let me = self.ground.args.node.clone();
        tracing::warn!(version = %self.version, "this node was removed from the cluster");
        let message = format!("{me} is no member of the cluster any more");
        let draft = Draft::new(EventKind::NodeRemoved, message).field("node", me.as_str());
        self.ground.events.record(draft);
        for place in self.hands.places.values() {
            if let Some(configs) = &place.configs {
                let (answer, _) = oneshot::channel();
                // A driver that ended has nothing to stop.
                let _ = configs.send(Reconfigured { config: None, answer }).await;
            }
        }
        self.close_doors(BTreeSet::new()).await;
        self.hands.fronts.part(DOOR_GRACE).await;
        self.keep();
        let version = self.version;
        self.applied.send_replace(Applied { version, waits: Vec::new(), removed: true });
    }
}

/// A copy of which nothing can be known is not said to have stopped (INV-12): it has once the
/// longest lease has passed, since nobody renews that of a node that was removed.
fn works_no_more(own: &InstanceFacts, removed_for: Duration) -> bool {
    let is_unknown = matches!(own.data, Data::Quarantined { .. });
    let has_passed = is_unknown && removed_for > config::LEASE_MAX;
    own.process == Process::Stopped || (own.process == Process::Stopping && has_passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_removed_ends_though_nobody_knows_what_was_left() {
        let data = Data::Quarantined { reason: "it cannot be read".into() };
        let unknown =
            InstanceFacts { data, process: Process::Stopping, ..InstanceFacts::default() };
        let known = InstanceFacts { process: Process::Stopping, ..InstanceFacts::default() };
        assert!(!works_no_more(&unknown, Duration::from_secs(1)), "a lease may hold");
        assert!(works_no_more(&unknown, Duration::from_secs(31)));
        assert!(!works_no_more(&known, Duration::from_secs(31)));
    }
}
