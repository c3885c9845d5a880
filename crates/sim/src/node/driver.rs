//! Drives one instance as the shell does: observe, hold the lease, plan, act.
//! What the shell's `driver/instance.rs` does with tasks and channels happens here with events.

use super::hub::Hub;
use super::steps::Change;
use crate::event::{Event, Micros};
use crate::invariants;
use crate::mutation::Mutation;
use crate::world::World;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::lease::{self, Proof};
use tandem_core::cluster::state::{Appointment, ServiceState};
use tandem_core::clustering::active_passive::{Action, InstanceView, instance};
use tandem_core::facts::{Data, InstanceFacts, Process, Stream, instance_differs};
use tandem_core::ids::{NodeId, Term};
use tandem_core::replication::primary_replica::loaded_rule::LoadedRule;
use tandem_core::time::Timestamp;

const TICK: Micros = 50_000;
const LEASE_STEP: Duration = Duration::from_millis(50);
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A running daemon; everything in it is lost with it.
#[derive(Debug)]
pub struct Daemon {
    /// What it knows.
    pub hub: Hub,
    /// The own copy.
    pub own: InstanceFacts,
    /// What was last told to the others.
    pub told: InstanceFacts,
    /// When that was seen.
    pub observed_at: Timestamp,
    /// Observations that began before this are stale.
    pub changed_at: Timestamp,
    /// When it started.
    pub started: Timestamp,
    /// A witness: when it last answered each peer before it promised.
    pub answered: BTreeMap<NodeId, Timestamp>,
    /// The instance was found running.
    pub adopting: bool,
    stalled_since: Option<Timestamp>,
    /// The action that is carried out.
    pub running: Option<Running>,
    /// What the keeper was told last.
    pub lease: Timestamp,
    failures: u32,
    retry_at: Timestamp,
    /// A term it was asked to promise.
    pub asked: Option<Term>,
    /// Which rules its server may obey since its promotion.
    pub loaded: LoadedRule,
    /// Believes that it is the Raft leader.
    pub leads: bool,
    /// A proposal whose end it waits for.
    pub proposing: Option<u64>,
    /// Promises asked for lately.
    pub recruited: BTreeMap<(usize, Term), Timestamp>,
    /// Why it last planned as it did.
    pub planned: Option<String>,
    /// A heartbeat is planned.
    pub beat_planned: bool,
    /// A look is planned.
    pub look_planned: bool,
}

/// An action under way.
#[derive(Clone, Debug)]
pub struct Running {
    /// Which.
    pub action: Action,
    /// Tells its steps from those of an earlier one.
    pub id: u64,
    /// How far it has come.
    pub step: u8,
    /// The lease when it began.
    pub lease: Option<Timestamp>,
    /// When a ballot may count.
    pub fence_wait: Option<Timestamp>,
    /// A position that it waits for.
    pub position: usize,
    /// Given up after this.
    pub deadline: Timestamp,
}

impl World {
    /// A daemon starts and takes over what runs.
    pub fn on_start_daemon(&mut self, n: usize) {
        if !self.nodes[n].powered || self.nodes[n].daemon.is_some() {
            return;
        }
        let peers: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.id.clone())
            .filter(|id| *id != self.nodes[n].id)
            .collect();
        let node = &mut self.nodes[n];
        node.daemons += 1;
        node.keeper |= node.server.is_none();
        let inc = node.daemons;
        let now = node.clock.at(self.now);
        self.record.clocks.insert((n, inc.into()), node.clock);
        let mut own = InstanceFacts::default();
        if node.witness {
            let promised = node.disk.state.promised;
            own.data = Data::Witness;
            own.promised = promised;
        } else {
            node.disk.inspect(&mut own);
        }
        node.daemon = Some(Box::new(Daemon {
            hub: Hub::new(peers.into_iter(), now),
            told: own.clone(),
            own,
            observed_at: now,
            changed_at: Timestamp(0),
            started: now,
            answered: BTreeMap::new(),
            adopting: true,
            stalled_since: None,
            running: None,
            lease: Timestamp(0),
            failures: 0,
            retry_at: Timestamp(0),
            asked: None,
            loaded: LoadedRule::default(),
            leads: false,
            proposing: None,
            recruited: BTreeMap::new(),
            planned: None,
            beat_planned: false,
            look_planned: false,
        }));
        self.note(n, || "the daemon starts".into());
        self.after(0, 5_000, Event::Tick { n, inc });
        self.after(0, 5_000, Event::BeatTick { n, inc });
        self.after(0, 5_000, Event::KeeperStatus { n, inc });
        self.after(0, 9_000, Event::Look { n, inc, nudged: false });
        self.reconsider_leader();
    }

    /// Plans even though nothing happened.
    pub fn on_tick(&mut self, n: usize, inc: u32) {
        if self.is_daemon(n, inc) {
            self.queue.push(self.now + TICK, Event::Tick { n, inc });
            self.hub_changed(n);
        }
    }

    /// Something that plans depend on changed.
    pub fn hub_changed(&mut self, n: usize) {
        if self.nodes[n].awake() {
            self.drive(n);
            self.control(n);
        }
    }

    fn publish(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_mut() else { return };
        let own = &mut daemon.own;
        let streams = matches!(own.stream, Stream::Connected(_));
        if streams {
            own.rejoin_failures = 0;
        }
        let should = match own.process {
            Process::Standby => own.upstream.is_some(),
            Process::Primary => own.serving.is_none(),
            _ => false,
        };
        if streams || !should {
            daemon.stalled_since = None;
        } else {
            daemon.stalled_since.get_or_insert(now);
        }
        own.stalled = daemon.stalled_since.map_or(Duration::ZERO, |since| now.since(since));
        if instance_differs(&daemon.told, own) {
            daemon.told = own.clone();
            self.plan_beat(n);
        }
    }

    /// One round of the instance's loop.
    pub fn drive(&mut self, n: usize) {
        if !self.nodes[n].awake() {
            return;
        }
        let agreed = self.agreed(n);
        let Some(state) = agreed.services.get(&self.service) else { return };
        let spec = self.spec_of(n);
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.own.outlives = lease::outlives(&spec, state);
        }
        self.publish(n);
        if self.nodes[n].witness {
            self.drive_witness(n, state);
            invariants::routes::check(self, n);
            return;
        }
        self.hold_lease(n, state);
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.own.revision = state.revision;
        }
        self.decide(n, state);
        self.publish(n);
        invariants::routes::check(self, n);
    }

    fn hold_lease(&mut self, n: usize, state: &ServiceState) {
        let until = state.appointment.as_ref().and_then(|a| self.proven_until(n, a));
        let node = &mut self.nodes[n];
        let Some(daemon) = node.daemon.as_mut() else { return };
        let rises =
            daemon.running.as_ref().is_some_and(|r| matches!(r.action, Action::Promote { .. }));
        let Some(until) = until.filter(|_| daemon.own.process == Process::Primary || rises) else {
            return;
        };
        if until >= daemon.lease.plus(LEASE_STEP) {
            daemon.lease = until;
            self.renew(n, until);
        }
    }

    /// Until when the primary may serve, as far as this node knows.
    pub fn proven_until(&self, n: usize, appointment: &Appointment) -> Option<Timestamp> {
        let strangers = self.options.mutation == Some(Mutation::SupportStrangers);
        let node = &self.nodes[n];
        let daemon = node.daemon.as_ref()?;
        if appointment.primary != node.id || daemon.own.promised > appointment.term {
            return None;
        }
        let acknowledged = daemon.hub.proof(&self.spec_of(n), appointment.term, strangers);
        let proof = Proof {
            me: &node.id,
            voters: &self.voters,
            rules: &appointment.rules,
            now: node.clock.at(self.now),
            acknowledged: &acknowledged,
        };
        lease::valid_until(&proof, self.spec.timing.lease)
    }

    fn decide(&mut self, n: usize, state: &ServiceState) {
        let node = &self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_ref() else { return };
        let of = (&self.service, state);
        let mut timing = self.spec.timing;
        if self.options.mutation == Some(Mutation::BelieveStale) {
            timing.suspicion = Duration::MAX;
        }
        let times = (&timing, now);
        let primary = InstanceView::heard_primary(&node.id, of, &daemon.hub.facts, times);
        let view = InstanceView {
            me: &node.id,
            timing: self.spec.timing,
            state,
            own: &daemon.own,
            primary,
            asked: daemon.asked,
        };
        let next = instance::plan(&view);
        let same = invariants::fresh::acts_alike(&view, &daemon.hub.facts, of, (&next, now));
        if !same {
            self.violate(format!("{}: {}", invariants::fresh::RULE, next.reason));
            return;
        }
        let Some(action) = next.action else {
            self.stop_running(n, None);
            return;
        };
        if action == Action::Fence {
            self.stop_running(n, Some(&action));
            self.server_ends(n, false, "fenced");
            return;
        }
        let is_running = |running: &Running| running.action == action;
        if daemon.running.as_ref().is_some_and(is_running) {
            return;
        }
        let urgent = matches!(action, Action::Promise { .. });
        let ready = urgent || now >= daemon.retry_at;
        self.stop_running(n, Some(&action));
        if ready && self.nodes[n].daemon.as_ref().is_some_and(|d| d.running.is_none()) {
            let lease = state.appointment.as_ref().and_then(|a| self.proven_until(n, a));
            if matches!(action, Action::Promote { .. }) && lease.is_none_or(|until| until <= now) {
                return;
            }
            self.note(n, || format!("begins {action:?}: {}", next.reason));
            self.begin(n, action, lease, state);
        }
    }

    fn stop_running(&mut self, n: usize, next: Option<&Action>) {
        let node = &mut self.nodes[n];
        let Some(daemon) = node.daemon.as_mut() else { return };
        let Some(running) = &daemon.running else { return };
        let waits = matches!(
            running.action,
            Action::RecordTerm { .. } | Action::ApplyRule { .. } | Action::Checkpoint
        );
        let copies = matches!(running.action, Action::Clone { .. });
        if (waits || copies && next.is_some()) && next != Some(&running.action) {
            daemon.running = None;
            if copies {
                node.disk.inspect(&mut daemon.own);
            }
        }
    }

    /// An action ended.
    pub fn finish(&mut self, n: usize, id: u64, result: Result<Change, &'static str>) {
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_mut() else { return };
        let Some(running) = daemon.running.take_if(|running| running.id == id) else { return };
        match result {
            Ok(change) => {
                daemon.changed_at = now;
                daemon.observed_at = now;
                change(&mut daemon.own, node.disk.state);
                daemon.failures = 0;
                daemon.retry_at = Timestamp(0);
                self.note(n, || format!("done {:?}", running.action));
                self.look(n);
            }
            Err(why) => {
                daemon.failures = daemon.failures.saturating_add(1);
                let wait = BACKOFF.saturating_mul(1 << daemon.failures.min(6)).min(BACKOFF_MAX);
                daemon.retry_at = now.plus(wait);
                if matches!(running.action, Action::Rewind { .. } | Action::Clone { .. }) {
                    if !why.contains("source") {
                        daemon.own.rejoin_failures += 1;
                    }
                    node.disk.inspect(&mut daemon.own);
                }
                self.note(n, || format!("failed {:?}: {why}", running.action));
            }
        }
        self.drive(n);
    }
}
