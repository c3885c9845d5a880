//! Runs a cluster on virtual time until it failed, or healed and served.

use crate::event::{Event, Micros, Queue};
use crate::explore::Placed;
use crate::faults::FAULTS_UNTIL;
use crate::invariants::Record;
use crate::network::Net;
use crate::node::{Clock, Disk, Node};
use crate::options::{Options, Shape};
use crate::postgres::wal::Kind;
use crate::raft::Raft;
use crate::rng::Rng;
use crate::trace::Trace;
use std::collections::BTreeSet;
use std::rc::Rc;
use tandem_core::cluster::command::{Command, Config};
use tandem_core::cluster::state::ClusterState;
use tandem_core::facts::Health;
use tandem_core::ids::{ClusterId, NodeId, ServiceId};
use tandem_core::lsn::Lsn;
use tandem_core::pairing::{Clustering, Kind as ServiceKind, Pairing, Replication};
use tandem_core::spec::{ClusterSpec, NodeRole, NodeSpec, ServiceSpec, Timing};

/// After this much healed time it must serve.
const HEALED_WITHIN: Micros = 60_000_000;

/// How long a mutated run goes on after healing.
const MUTATED_FOR: Micros = 8_000_000;

/// A cluster and everything around it.
#[derive(Debug)]
pub struct World {
    /// True time.
    pub now: Micros,
    /// What is going to happen.
    pub queue: Queue,
    /// All chance.
    pub rng: Rng,
    /// The machines.
    pub nodes: Vec<Node>,
    /// What is agreed.
    pub raft: Raft,
    /// What arrives.
    pub net: Net,
    /// The one service.
    pub service: ServiceId,
    /// What its owner asked for.
    pub spec: ServiceSpec,
    /// Every node's name.
    pub voters: BTreeSet<NodeId>,
    /// How this run differs from others.
    pub options: Options,
    /// What invariants remember.
    pub record: Record,
    /// What happened.
    pub trace: Trace,
    /// What was broken, if anything.
    pub violation: Option<String>,
    /// Something that the meeting of quorums depends on changed.
    pub rules_changed: bool,
    /// Nobody writes.
    pub clients_rest: bool,
    /// Whoever is promoted next dies soon after, its daemon first, for so long.
    pub next_dies: Option<Micros>,
    /// All faults are over.
    pub healed: bool,
    /// It served after healing.
    pub served: bool,
    /// Steps of actions so far.
    pub steps: u64,
    /// Faults at steps, the last first.
    pub placed: Vec<Placed>,
    /// When everything was mended.
    pub healed_at: Micros,
    /// Events so far.
    pub events: u64,
    ids: u64,
}

/// The name of a node.
pub const fn name(n: usize) -> &'static str {
    ["a", "b", "c", "d", "e"][n]
}

/// The number of a node.
pub fn index(node: &NodeId) -> usize {
    node.as_str().bytes().next().map_or(0, |byte| usize::from(byte - b'a'))
}

/// A position.
pub const fn lsn(position: usize) -> Lsn {
    Lsn(position as u64)
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let (shape, durability) = options.choose(&mut rng);
        let pairing = Pairing::new(
            ServiceKind::Postgres,
            Clustering::ActivePassive,
            Replication::PrimaryReplica,
        );
        let Ok(pairing) = pairing else { unreachable!("a pair that is refused") };
        let spec = ServiceSpec::new(pairing, durability, Timing::default());
        let service = ServiceId::from("orders");
        let nodes: Vec<Node> = (0..shape.nodes()).map(|n| node(n, shape, &mut rng)).collect();
        let state = founded(&nodes, &service, &spec);
        let count = nodes.len();
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            rng,
            voters: nodes.iter().map(|node| node.id.clone()).collect(),
            record: Record::new(count),
            nodes,
            raft: Raft::new(state),
            net: Net::new(count),
            service,
            spec,
            options,
            trace: Trace::new(options.trace),
            violation: None,
            rules_changed: true,
            clients_rest: false,
            next_dies: None,
            healed: false,
            served: false,
            steps: 0,
            placed: Vec::new(),
            healed_at: 0,
            events: 0,
            ids: 0,
        };
        world.note_bound();
        world.begin_run();
        world
    }

    fn begin_run(&mut self) {
        for n in 0..self.nodes.len() {
            self.after(0, 200_000, Event::StartDaemon { n });
        }
        self.after(200_000, 400_000, Event::Elect { round: 0 });
        self.queue.push(100_000, Event::RaftTick);
        self.queue.push(500_000, Event::Client);
        if !self.options.calm {
            self.plan_faults();
            self.queue.push(FAULTS_UNTIL, Event::Heal);
        }
    }

    /// Something happens between `low` and `high` from now.
    pub fn after(&mut self, low: Micros, high: Micros, event: Event) {
        let at = self.now + self.rng.between(low, high);
        self.queue.push(at, event);
    }

    /// A number that was never used.
    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Notes a line about a node.
    pub fn note(&mut self, n: usize, line: impl FnOnce() -> String) {
        self.trace.note(self.now, || format!("{}: {}", name(n), line()));
    }

    /// What the owner asked for, as a node knows it.
    pub fn spec_of(&self, n: usize) -> ServiceSpec {
        self.spec_in(&self.agreed(n))
    }

    /// What the owner asked for, as last agreed.
    pub fn spec_now(&self) -> ServiceSpec {
        self.spec_in(self.raft.last())
    }

    fn spec_in(&self, state: &ClusterState) -> ServiceSpec {
        state.spec.services.get(&self.service).unwrap_or(&self.spec).clone()
    }

    /// Whether the daemon is still that one.
    pub fn is_daemon(&self, n: usize, inc: u32) -> bool {
        self.nodes[n].daemon.is_some() && self.nodes[n].daemons == inc
    }

    /// Runs to the end.
    pub fn run(&mut self) {
        while self.violation.is_none() && !self.served && self.step() {}
    }

    /// Runs until then, or until something is broken.
    pub fn run_until(&mut self, until: Micros) {
        while self.violation.is_none() && self.now < until && self.step() {}
    }

    /// Lets one thing happen, and checks.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = at;
        self.events += 1;
        if let Some(n) = event.node() {
            if !self.nodes[n].powered {
                return true;
            }
            let daemon_waits = self.nodes[n].daemon_frozen && event.is_for_daemon();
            if self.nodes[n].frozen || daemon_waits {
                self.nodes[n].inbox.push(event);
                return true;
            }
        }
        self.handle(event);
        self.check_step();
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick { n, inc } => self.on_tick(n, inc),
            Event::BeatTick { n, inc } => self.on_beat_tick(n, inc),
            Event::BeatNow { n, inc } => self.on_beat_now(n, inc),
            Event::BeatRequest { to, from, inc, sent, facts } => {
                self.on_request(to, from, (inc, sent, facts));
            }
            Event::BeatAnswer { to, from, inc, sent, facts } => {
                self.on_answer(to, from, (inc, sent, facts));
            }
            Event::Refused { n, inc, peer, refused } => self.on_refused(n, inc, (peer, refused)),
            Event::Look { n, inc, nudged } => self.on_look(n, inc, nudged),
            Event::Looked { n, inc, pg, began, seen } => self.on_looked(n, inc, (pg, began, seen)),
            Event::KeeperExited { n, inc, pg, .. } => self.on_exited(n, inc, pg),
            Event::KeeperStatus { n, inc } => self.on_keeper_status(n, inc),
            Event::Step { n, inc, id } => self.on_step(n, inc, id),
            Event::Asked { n, inc, term } => self.on_asked(n, inc, term),
            Event::Applied { n, upto } => self.on_applied(n, upto),
            Event::RaftTick => self.on_raft_tick(),
            Event::Elect { round } => self.on_elect(round),
            Event::Depose { n, inc } => self.on_depose(n, inc),
            Event::Commit { id } => self.on_commit(id),
            Event::ProposalEnded { n, inc, id } => self.on_proposal_ended(n, inc, id),
            Event::Client => self.on_client(),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Boot { n } => self.on_boot(n),
            Event::StartDaemon { n } => self.on_start_daemon(n),
            Event::Thaw { n } => self.on_thaw(n),
            Event::ThawDaemon { n } => self.on_thaw_daemon(n),
            Event::Heal => self.on_heal(),
            Event::Judge => self.on_judge(),
            Event::LeaseEnds { .. }
            | Event::Ready { .. }
            | Event::Reload { .. }
            | Event::Flushed { .. }
            | Event::Promoted { .. }
            | Event::Stop { .. }
            | Event::Connect { .. }
            | Event::Receive { .. }
            | Event::Confirm { .. }
            | Event::SenderGone { .. }
            | Event::ReceiverGone { .. }
            | Event::Ping { .. } => self.handle_postgres(event),
        }
    }

    fn handle_postgres(&mut self, event: Event) {
        match event {
            Event::LeaseEnds { n, pg } => self.on_lease_ends(n, pg),
            Event::Ready { n, pg } => self.on_ready(n, pg),
            Event::Reload { n, pg, conn } => self.on_reload(n, pg, conn),
            Event::Flushed { n, pg, upto } => self.on_flushed(n, pg, upto),
            Event::Promoted { n, pg } => self.on_promoted(n, pg),
            Event::Stop { n, pg, end } => self.on_stop(n, pg, end),
            Event::Connect { n, pg } => self.on_connect(n, pg),
            Event::Receive { n, pg, conn } => self.on_receive(n, pg, conn),
            Event::Confirm { n, pg, from, conn, flushed } => {
                self.on_confirm(n, pg, from, (conn, flushed));
            }
            Event::SenderGone { n, pg, from, conn } => self.on_sender_gone(n, pg, from, conn),
            Event::ReceiverGone { n, pg, conn } => self.receiver_ends(n, pg, conn),
            Event::Ping { n, pg, conn } => self.on_ping(n, pg, conn),
            _ => {}
        }
    }

    /// Clients write to whatever takes writes, rightly or not.
    fn on_client(&mut self) {
        self.after(5_000, 60_000, Event::Client);
        if self.clients_rest {
            return;
        }
        for n in 0..self.nodes.len() {
            let waits = self.nodes[n].server.as_ref().map_or(0, |server| server.waiters.len());
            if self.is_primary(n) && self.nodes[n].moving() && waits < 40 {
                self.write(n, Kind::Write);
            }
        }
    }

    /// Looks whether all is well again.
    fn on_judge(&mut self) {
        if self.options.mutation.is_some() && self.now > self.healed_at + MUTATED_FOR {
            // What is broken on purpose need not serve; what counts is what it may never do.
            self.served = true;
            return;
        }
        match self.what_is_missing() {
            None => self.served = true,
            Some(missing) if self.now > self.healed_at + HEALED_WITHIN => {
                self.violate(format!("liveness: 60 s after healing: {missing}"));
            }
            Some(_) => {
                self.resume();
                self.queue.push(self.now + 250_000, Event::Judge);
            }
        }
    }
}

fn node(n: usize, shape: Shape, rng: &mut Rng) -> Node {
    let witness = shape == Shape::TwoAndWitness && n == 2;
    let far = rng.chance(5);
    let clock = Clock {
        offset: rng.between(0, 3_600_000_000),
        drift_ppm: rng.between(0, 20_000) as i64 - 10_000,
        skew_ms: if far {
            rng.between(0, 7_200_000) as i64 - 3_600_000
        } else {
            rng.below(200) as i64 - 100
        },
    };
    Node {
        id: name(n).into(),
        witness,
        powered: true,
        frozen: false,
        thawed: 0,
        daemon_frozen: false,
        health: Health::Good,
        sick_since: 0,
        priority: [100, 100, 100, 0, 50, 200][rng.below(6)],
        zone: [None, Some("east"), Some("west")][rng.below(3)],
        applies_late: false,
        inbox: Vec::new(),
        clock,
        disk: Disk::default(),
        keeper: true,
        lease: None,
        server: None,
        servers: 0,
        daemon: None,
        daemons: 0,
        applied: 0,
    }
}

fn founded(nodes: &[Node], service: &ServiceId, spec: &ServiceSpec) -> ClusterState {
    let machine = |node: &Node| NodeSpec {
        role: if node.witness { NodeRole::Witness } else { NodeRole::Data },
        zone: node.zone.map(String::from),
        priority: node.priority,
        capacity: 1,
    };
    let spec = ClusterSpec {
        nodes: nodes.iter().map(|node| (node.id.clone(), machine(node))).collect(),
        services: [(service.clone(), spec.clone())].into(),
    };
    let config = Box::new(Config { text: String::new(), spec });
    let mut state = ClusterState::default();
    state.apply(&Command::Found { cluster: ClusterId::from("c0ffee"), config });
    Rc::new(state).as_ref().clone()
}
