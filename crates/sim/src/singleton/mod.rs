//! Runs the shipped decisions about a singleton on a fake world: machines, keepers, clocks that
//! drift, a network that loses, an agreement that may lose its leader; from a seed.
//! Keeps: INV-12, checked after every step: a copy runs from its start until its last process is
//! gone, and no two run at once. INV-13 for each partition (`divided`). INV-14: a plan cuts no
//! session that a door has there (`doors`, `beside`). INV-15 with doors by key (`keyed`).
//!
//! What it does not find: a keeper that wakes from a freeze a moment after the copy it guards, and
//! a process that SIGKILL does not end (`docs/adr/0014-singletons.md` says what then).

mod agreement;
pub(crate) mod beside;
mod controller;
mod copy;
mod daemon;
mod divided;
mod doors;
mod event;
mod faults;
mod founding;
mod judging;
mod keyed;
mod machine;
mod network;
mod owner;
mod witness;

use crate::event::Micros;
use crate::network::Net;
use crate::rng::Rng;
use crate::runner::Failure;
use crate::trace::Trace;
use agreement::Agreement;
use event::Event;
use machine::{Machine, machine};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::ClusterSpec;

/// Faults end here.
const FAULTS_UNTIL: Micros = 40_000_000;
/// One rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A vote counts before the holder's lease has passed.
    VoteAtOnce,
    /// A promise is told and not kept on the disk.
    ForgetPromise,
    /// A holder votes while its copy still runs.
    VoteWhileItRuns,
    /// It starts without a proven lease.
    StartWithoutLease,
    /// A planned end waits for no door.
    StopBeforeDoors,
    /// A partition is given on before its owner released it.
    GiveWithoutProof,
    /// A release counts for any epoch.
    AnyEpoch,
    /// A release is told before the process confirmed it.
    ReleaseAtOnce,
    /// A release is told before the file says that it was asked back.
    ReleaseBeforeFile,
    /// A restarted daemon shows what it acted on long ago.
    ForgetFloor,
    /// A copy that withdrew does not wait for doors.
    StopAtOnce,
    /// A restarted daemon takes doors that it never heard for lost.
    ForgetDoors,
    /// A door says that it obeys before it does.
    ObeyFirst,
    /// A door does not say what it still has.
    ForgetInFlight,
    /// The others are taken to serve, whatever they say.
    StopTheLast,
    /// What a node said counts for ever.
    CountStale,
    /// It is everybody's turn to start anew.
    TurnOfAll,
    /// A door by key keeps the route that it had.
    KeepOldRoute,
    /// It leads to whoever shall release.
    LeadToReleasing,
    /// It leads to nodes that are silent.
    LeadToSilent,
    /// It leads to copies that do not run, or are not well.
    LeadToDown,
    /// It leads to whoever is proven gone.
    LeadToPassed,
    /// Whoever waits does not hear of routes.
    RouteWakesNobody,
    /// What was turned away is sent again, whoever else was.
    AskAtOnce,
    /// Nobody looks again who waits for one that asks for all.
    GateSleeps,
    /// That one was taken changes nothing.
    GateStays,
    /// That one was taken opens, whenever it was sent.
    OldAnswerOpens,
    /// Who turned somebody away is forgotten while the door leads there no more.
    ForgetWhileAway,
    /// Who turns somebody away is not heard while the door leads there no more.
    DeafWhileAway,
    /// Whoever waits does not hear that one was taken.
    OpensUnsaid,
    /// Requests are held for ever.
    HoldForEver,
    /// A copy serves what it does not own.
    ServeAnybodys,
    /// It confirms a release while it works on requests.
    ConfirmWhileBusy,
    /// A door by key lets wait what it led to copies that are gone.
    CutNobody,
    /// It forgets where it led what it leads nowhere for now.
    ForgetLed,
    /// It cuts what was led to whoever is not the owner any more.
    CutReleased,
    /// A copy whose configuration has changed starts anew with all that it owns.
    StartAnewWithWork,
    /// What is taken out has its lease, proven or not, until it has ended.
    LeaveUnproven,
    /// What is taken out is supported of those who do not know it.
    SupportWhoWasAway,
}

/// How a command is clustered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// One copy at a time, under a lease.
    #[default]
    Alone,
    /// A copy on every node, its work divided into so many partitions.
    Divided(u32),
    /// Copies side by side, behind doors.
    Beside,
}

/// What a run is made of, apart from its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
    /// No faults but those that are asked for.
    pub calm: bool,
    /// How it is clustered.
    pub what: What,
    /// Of work that is divided: with doors by key, and clients.
    pub keyed: bool,
    /// Lines of trace to keep.
    pub trace: usize,
}

/// A cluster with one singleton.
#[derive(Debug)]
pub struct World {
    /// True time.
    pub now: Micros,
    order: BinaryHeap<Reverse<(Micros, u64)>>,
    waiting: BTreeMap<u64, Event>,
    rng: Rng,
    nodes: Vec<Machine>,
    agreement: Agreement,
    net: Net,
    /// A singleton, or the seats of all data nodes.
    services: Vec<ServiceId>,
    /// Whose seats these are.
    work: Option<ServiceId>,
    /// What is configured while the owner changes nothing.
    founded: ClusterSpec,
    options: Options,
    trace: Trace,
    violation: Option<String>,
    healed_at: Option<Micros>,
    well_since: Option<Micros>,
    served: bool,
    events: u64,
    ids: u64,
    side: beside::Side,
    keyed: keyed::Side,
    /// How many partitions were given to somebody.
    pub given: u64,
    /// For what is under way where a copy is to end.
    drain_max: Duration,
    /// When a copy was started last, and where.
    pub last_start: Option<(Micros, usize)>,
    /// How many copies their leases ended.
    pub outlived: u64,
}

/// The name of a node.
const fn name(n: usize) -> &'static str {
    ["a", "b", "c", "d", "e"][n]
}

/// The number of a node.
fn index(node: &NodeId) -> usize {
    node.as_str().bytes().next().map_or(0, |byte| usize::from(byte - b'a'))
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut rng = Rng::new(seed);
        let count = if !options.calm && rng.chance(30) { 5 } else { 3 };
        let witness = count == 3 && !options.calm && rng.chance(40);
        let mut nodes: Vec<Machine> =
            (0..count).map(|n| machine(n, witness && n == 2, options, &mut rng)).collect();
        let (state, work, services) = founding::founded(&nodes, options.what, &mut rng);
        let founded = state.spec.clone();
        for node in &mut nodes {
            node.disks = vec![machine::Disk::default(); services.len()];
        }
        let mut world = Self {
            now: 0,
            order: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            rng,
            net: Net::new(count),
            nodes,
            agreement: Agreement::new(state),
            services,
            work,
            founded,
            options,
            trace: Trace::new(options.trace),
            violation: None,
            healed_at: None,
            well_since: None,
            served: false,
            events: 0,
            ids: 0,
            side: beside::Side::default(),
            keyed: keyed::Side::new(seed),
            given: 0,
            drain_max: Duration::from_millis([2_000, 300, 20_000, 0][(seed % 4) as usize]),
            last_start: None,
            outlived: 0,
        };
        for n in 0..count {
            world.after(0, 200_000, Event::StartDaemon { n });
        }
        world.after(200_000, 400_000, Event::Elect { round: 0 });
        world.push(100_000, Event::AgreementTick);
        if options.keyed {
            world.push(0, Event::Keyed(keyed::Event::Judge));
        }
        if !options.calm {
            world.after(0, 5_000_000, Event::Fault);
            world.push(FAULTS_UNTIL, Event::Heal);
        }
        world
    }

    fn push(&mut self, at: Micros, event: Event) {
        self.ids += 1;
        self.order.push(Reverse((at.max(self.now), self.ids)));
        self.waiting.insert(self.ids, event);
    }

    fn after(&mut self, low: Micros, high: Micros, event: Event) {
        let at = self.now + self.rng.between(low, high);
        self.push(at, event);
    }

    fn note(&mut self, n: usize, line: impl FnOnce() -> String) {
        self.trace.note(self.now, || format!("{}: {}", name(n), line()));
    }

    fn violate(&mut self, what: String) {
        self.trace.note(self.now, || format!("VIOLATED {what}"));
        self.violation.get_or_insert(what);
    }

    /// Runs until then, or until something is broken.
    pub fn run_until(&mut self, until: Micros) {
        while self.violation.is_none() && !self.served && self.now < until && self.step() {}
    }

    /// The last lines of what happened.
    pub fn story(self) -> String {
        self.trace.lines().join("\n")
    }

    /// What was broken, if anything.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// Where copies run, frozen machines left out: they do nothing.
    pub fn runs_on(&self) -> Vec<usize> {
        let runs = |node: &&Machine| node.copy.is_some() && !node.frozen;
        self.nodes.iter().filter(runs).map(|node| index(&node.id)).collect()
    }

    /// Takes a machine's power away, or only its process.
    pub fn kill_node(&mut self, n: usize) {
        self.power_off(n);
    }

    /// The copy's process ends by itself.
    pub fn kill_copy(&mut self, n: usize) {
        if let Some(life) = self.nodes[n].copy.as_ref().map(|copy| copy.life) {
            self.gone(n, life);
        }
    }

    fn step(&mut self) -> bool {
        let Some(Reverse((at, id))) = self.order.pop() else { return false };
        let Some(event) = self.waiting.remove(&id) else { return true };
        self.now = at;
        self.events += 1;
        if let Some((n, is_for_daemon)) = event.node() {
            let node = &mut self.nodes[n];
            if !node.powered {
                return true;
            }
            if node.frozen || is_for_daemon && node.daemon_frozen {
                node.inbox.push(event);
                return true;
            }
        }
        self.handle(event);
        self.check();
        true
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick { n, inc } => self.on_tick(n, inc),
            Event::BeatTick { n, inc } => self.on_beat_tick(n, inc),
            Event::BeatNow { n, inc } => self.on_beat_now(n, inc),
            Event::Request { to, from, inc, sent, facts } => {
                self.on_request(to, from, (inc, sent, facts));
            }
            Event::Answer { to, inc, sent, facts } => self.on_answer(to, inc, sent, &facts),
            Event::Refused { n, inc, peer } => self.on_refused(n, inc, peer),
            Event::Asked { n, inc, s, term } => self.on_asked(n, inc, (s, term)),
            Event::Written { n, inc, id } => self.on_written(n, inc, id),
            Event::Done { n, inc, id } => self.on_done(n, inc, id),
            Event::Ended { n, inc, .. } if self.is_beside() => self.on_ended_beside(n, inc),
            Event::Ended { n, inc, life } => self.on_ended(n, inc, life),
            Event::LeaseEnds { n, life } => self.on_lease_ends(n, life),
            Event::Dies { n, life } | Event::Gone { n, life } => self.gone(n, life),
            Event::Look { n, life } => self.on_look(n, life),
            Event::Saw { n, life, order, shown } => self.on_saw(n, life, (order, &shown)),
            Event::Finish { n, life, held } => self.on_finish(n, life, held),
            Event::Confirmed { n, life, held } => self.on_confirmed(n, life, held),
            Event::FloorWritten { n, inc, floor } => self.on_floor(n, inc, floor),
            Event::PutOut { n, inc, version, term, shown } => {
                self.on_put_out((n, inc), (version, term), &shown);
            }
            Event::Drive { n, inc } => self.on_drive(n, inc),
            Event::Beside(event) => self.handle_beside(event),
            Event::Keyed(event) => self.handle_keyed(event),
            Event::Applied { n, upto } => self.on_applied(n, upto),
            Event::AgreementTick => self.on_agreement_tick(),
            Event::Elect { round } => self.on_elect(round),
            Event::Depose { n, inc } => self.on_depose(n, inc),
            Event::Commit { id } => self.on_commit(id),
            Event::ProposalEnded { n, inc, id } => self.on_proposal_ended(n, inc, id),
            Event::StartDaemon { n } => self.on_start_daemon(n),
            Event::Thaw { n } => self.thaw(n),
            Event::ThawDaemon { n } => self.thaw_daemon(n),
            Event::Fault => self.on_fault(),
            Event::Mend { kind } => self.mend(kind),
            Event::Heal => self.heal(),
            Event::Judge => self.judge(),
        }
    }
}

/// How many partitions a seed's world has.
pub const fn partitions_of(seed: u64) -> u32 {
    1 + (seed % 12) as u32
}

/// Runs one seed; its failure, if any.
pub fn run(seed: u64, options: Options) -> Option<Failure> {
    tell(seed, options).0
}

/// The same, with the last lines of what happened.
pub fn tell(seed: u64, options: Options) -> (Option<Failure>, Vec<String>) {
    let mut world = World::new(seed, options);
    world.run_until(Micros::MAX);
    let failure = world.violation.clone().map(|violation| Failure {
        seed,
        violation,
        step: world.events,
        at_ms: world.now / 1000,
    });
    (failure, world.trace.lines())
}
