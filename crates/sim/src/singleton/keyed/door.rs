//! Drives the door of each node: who it knows to own what, who waits there, and who goes.
//! Not here: the same in the shell (`proxy/balancer/group.rs`, `waiting.rs`, `driver/guides`).

use super::clients::{At, Request};
use super::{Event, Sent};
use crate::event::Micros;
use crate::singleton::{Event as Outer, Mutation, World, index, name};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tandem_core::clustering::active_active::led::Led;
use tandem_core::clustering::active_active::routing::{Held, Route, RoutingView, routes};
use tandem_core::clustering::load_balanced::line::Line;
use tandem_core::clustering::load_balanced::owners::{Choice, Owned, Owners, Room, Routed};
use tandem_core::clustering::load_balanced::retry::{Budget, Limits};
use tandem_core::facts::{NodeFacts, Process};
use tandem_core::ids::{Epoch, NodeId, PartitionId, Term};
use tandem_core::spec::Timing;
use tandem_core::time::{Observed, Timestamp};

/// Who waits looks again no sooner than that, with nothing but time.
const LOOK: Micros = 100_000;

/// The door of one node; lost with its daemon.
#[derive(Debug)]
pub(crate) struct Door {
    pub(super) owners: Owners<usize>,
    led: Led<usize>,
    /// Those who wait, by request.
    pub(super) line: Line<u64>,
    pub(super) budget: Budget,
    planned: bool,
    /// When who of those that wait look again, by request and ticket, with nothing but time: each
    /// as that was when it came, when it last looked, or when all were told to look.
    wakes: BTreeMap<Micros, Vec<(u64, u64)>>,
}

/// What somebody gets.
#[derive(Clone, Copy, Debug)]
enum Given {
    /// A place at an endpoint.
    Place(Sent),
    /// Its owner failed it.
    Tried,
}

/// Whatever a node said of its copies, they are taken to be well.
fn all_well(told: &mut Observed<NodeFacts>, now: Timestamp) {
    let mut facts = told.last_known().clone();
    for own in facts.instances.values_mut() {
        (own.process, own.promoted) = (Process::Primary, Term(u64::MAX));
        own.serving = Some(own.promoted);
    }
    *told = Observed::new(facts, now.minus(told.age(now)));
}

impl Door {
    pub(crate) fn new(partitions: u32, now: Timestamp) -> Self {
        Self {
            owners: Owners::new(partitions),
            led: Led::default(),
            line: Line::default(),
            budget: Budget::new(Limits::default(), now),
            planned: false,
            wakes: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn door_by_key(&mut self, n: usize) -> Option<&mut Door> {
        self.nodes[n].daemon.as_mut().map(|daemon| &mut daemon.keyed)
    }

    /// The door looks soon: it is a task of its own.
    pub(crate) fn plan_routes(&mut self, n: usize) {
        let inc = self.nodes[n].daemons;
        if !self.options.keyed {
            return;
        }
        let Some(door) = self.door_by_key(n) else { return };
        if !std::mem::replace(&mut door.planned, true) {
            // Some daemons have much else to do.
            let most = if self.rng.chance(3) { 300_000 } else { 2_000 };
            self.after(20, most, Outer::Keyed(Event::Guide { n, inc }));
        }
    }

    pub(super) fn on_routes(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        self.note_away(n);
        let (found, gone) = self.routes_of(n);
        let mutation = self.options.mutation;
        let Some(door) = self.door_by_key(n) else { return };
        door.planned = false;
        let before: Vec<Option<Owned<usize>>> =
            (0..).take(found.len()).map(|id| door.owners.owner(PartitionId(id))).collect();
        let spoilt = |(before, route): (Option<Owned<usize>>, Route)| match (mutation, route) {
            (Some(Mutation::KeepOldRoute), Route::To(..)) if before.is_some() => before,
            (Some(Mutation::LeadToReleasing), Route::Held(Held::Releasing)) => before,
            (_, Route::To(node, epoch)) => Some(Owned { address: index(&node), epoch }),
            (_, Route::Held(_)) => None,
        };
        let all: Vec<Option<Owned<usize>>> = before.into_iter().zip(found).map(spoilt).collect();
        // What is led from here on is led anew, and not cut.
        let cut = self.cut_by(n, &gone, &all);
        let Some(door) = self.door_by_key(n) else { return };
        if mutation == Some(Mutation::ForgetWhileAway) {
            let foreign = Owned { address: n, epoch: Epoch(u64::MAX) };
            door.owners.replace(all.iter().map(|it| it.or(Some(foreign))).collect());
        }
        let is_new = door.owners.replace(all);
        cut.iter().for_each(|sent| self.on_cut(sent));
        if is_new && mutation != Some(Mutation::RouteWakesNobody) {
            self.tell_line(n);
        } else if !cut.is_empty() {
            self.serve_keyed(n);
        }
    }

    /// What waits at places from where whoever had it is gone.
    fn cut_by(&self, n: usize, gone: &[usize], all: &[Option<Owned<usize>>]) -> Vec<Sent> {
        let inc = self.nodes[n].daemons;
        let releases = self.options.mutation == Some(Mutation::CutReleased);
        let is_moved = |sent: &Sent| {
            let to = all.iter().zip(0..).find(|(_, id)| sent.routed.partition == PartitionId(*id));
            to.and_then(|(owned, _)| *owned).is_some_and(|owned| owned.address != sent.to)
        };
        let is_cut = |sent: &Sent| {
            let is_it = sent.door == n && sent.inc == inc;
            is_it && (gone.contains(&sent.to) || releases && is_moved(sent))
        };
        self.keyed.sent().filter(is_cut).collect()
    }

    /// Where each partition is led, and from where whoever was led to before is gone.
    fn routes_of(&mut self, n: usize) -> (Vec<Route>, Vec<usize>) {
        let now = self.nodes[n].clock.at(self.now);
        let agreed = self.agreed(n);
        let Some(service) = &self.work else { return (Vec::new(), Vec::new()) };
        let mutation = self.options.mutation;
        let is_blind = mutation == Some(Mutation::LeadToSilent);
        let mut services = agreed.services.clone();
        if mutation == Some(Mutation::LeadToPassed) {
            services.values_mut().for_each(|seat| seat.sitting = Term(0));
        }
        let mut facts = self.known(n, 0, now);
        if mutation == Some(Mutation::LeadToDown) {
            facts.values_mut().for_each(|told| all_well(told, now));
        }
        let suspicion = Timing::of_command().suspicion;
        let view = RoutingView {
            service,
            nodes: &agreed.spec.nodes,
            services: &services,
            facts: &facts,
            suspicion: if is_blind { Duration::from_secs(3_600) } else { suspicion },
        };
        let found = routes(&view, now);
        let leads: Vec<(usize, NodeId)> = found
            .iter()
            .filter_map(|route| match route {
                Route::To(node, _) => Some((index(node), node.clone())),
                Route::Held(_) => None,
            })
            .collect();
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return (found, Vec::new()) };
        let mut led = daemon.keyed.led.clone();
        let mut gone = led.look(&view, leads.clone());
        match self.options.mutation {
            Some(Mutation::CutNobody) => gone.clear(),
            Some(Mutation::ForgetLed) => {
                led = Led::default();
                led.look(&view, leads);
            }
            _ => {}
        }
        if let Some(door) = self.door_by_key(n) {
            door.led = led;
        }
        (found, gone)
    }

    /// A request wants a place, or one in the line of those who wait for it.
    pub(super) fn ask_keyed(&mut self, n: usize, id: u64) {
        let Some(partition) = self.keyed.requests.get(&id).map(|it| it.partition) else { return };
        let at = Some(u64::from(partition.0));
        let held_max = self.keyed.limits.held_max;
        let Some(door) = self.door_by_key(n) else { return };
        if !door.line.is_before(at)
            && let Some(given) = self.choose(n, id)
        {
            return self.give(n, id, given);
        }
        let Some(door) = self.door_by_key(n) else { return };
        let Some(ticket) = door.line.join(at, id, held_max) else {
            return self.crowded(n, id);
        };
        let since = self.now;
        if let Some(request) = self.keyed.requests.get_mut(&id) {
            request.at = At::Line { ticket, since };
        }
        self.waits_still(n, id);
        self.serve_keyed(n);
        self.plan_wakes(n, vec![(id, ticket)]);
    }

    /// Something changed: all who wait look, and when they do again is another question now.
    pub(super) fn tell_line(&mut self, n: usize) {
        self.serve_keyed(n);
        let Some(door) = self.door_by_key(n) else { return };
        door.wakes.clear();
        let in_line = |(id, it): (&u64, &Request)| match it.at {
            At::Line { ticket, .. } if it.door == n => Some((*id, ticket)),
            At::Line { .. } | At::Pauses | At::Sent { .. } => None,
        };
        let all = self.keyed.requests.iter().filter_map(in_line).collect();
        self.plan_wakes(n, all);
    }

    /// Gives what there is to those who wait, in the order in which they came.
    pub(super) fn serve_keyed(&mut self, n: usize) {
        let Some(door) = self.door_by_key(n) else { return };
        let mut line = std::mem::take(&mut door.line);
        let served = line.serve(|id| self.choose(n, *id));
        if let Some(door) = self.door_by_key(n) {
            door.line = line;
        }
        for (id, given) in served {
            self.give(n, id, given);
        }
    }

    fn choose(&mut self, n: usize, id: u64) -> Option<Given> {
        let now = self.nodes[n].clock.at(self.now);
        let inc = self.nodes[n].daemons;
        let at_once = self.options.mutation == Some(Mutation::AskAtOnce);
        let request = self.keyed.requests.get(&id)?;
        let max = self.keyed.limits.in_flight_max;
        let room = |to: &usize| match request.attempts.may_ask(to) {
            true if max == usize::MAX => Room::Free,
            true if self.keyed.in_flight((n, inc), *to) < max => Room::Free,
            true => Room::Full,
            false => Room::Tried,
        };
        let owners = &mut self.nodes[n].daemon.as_mut()?.keyed.owners;
        let choice = match owners.owner(request.partition).filter(|_| at_once) {
            Some(Owned { address, epoch }) => {
                Choice::To(address, Routed { partition: request.partition, epoch, at: now })
            }
            None => owners.choose(request.partition, room, now),
        };
        let (to, routed) = match choice {
            Choice::To(to, routed) => (to, routed),
            Choice::Tried => return Some(Given::Tried),
            Choice::Wait => return None,
        };
        let connects = self.rng.chance(20);
        let request = self.keyed.requests.get_mut(&id)?;
        request.no += 1;
        let (no, at, lasts) = (request.no, self.now, request.lasts);
        let sent = Sent { id, no, door: n, inc, to, routed, at, lasts, connects };
        request.at = At::Sent { sent, is_reached: false };
        Some(Given::Place(sent))
    }

    fn give(&mut self, n: usize, id: u64, given: Given) {
        match given {
            Given::Tried => self.another_round(n, id),
            Given::Place(sent) => {
                let to = sent.to;
                self.note(n, || {
                    let Routed { partition, epoch, .. } = sent.routed;
                    format!("request {id} of partition {partition} goes to {}, {epoch}", name(to))
                });
                self.judge_sent(&sent);
                let it = Rc::new(sent);
                let at = self.way_of_request(n, to);
                self.push_keyed(at, Event::Arrives { n: to, it: it.clone() });
                self.wait_for_answer(it);
            }
        }
    }

    /// Those who still wait look again, where nothing but time lets them go.
    fn plan_wakes(&mut self, n: usize, mut who: Vec<(u64, u64)>) {
        let (inc, now) = (self.nodes[n].daemons, self.now);
        let clock = self.nodes[n].clock;
        let Some(deadline) = self.deadline_of_line(n) else { return };
        who.retain(|it| self.is_in_line(*it));
        let at = clock.when(deadline).max(now + LOOK);
        let Some(door) = self.door_by_key(n).filter(|_| !who.is_empty()) else { return };
        let planned = door.wakes.entry(at).or_default();
        let is_first = planned.is_empty();
        planned.extend(who);
        if is_first {
            self.push_keyed(at, Event::Wakes { n, inc, at });
        }
    }

    fn deadline_of_line(&mut self, n: usize) -> Option<Timestamp> {
        let door = self.door_by_key(n)?;
        door.owners.deadline(|partition| door.line.waits_at(u64::from(partition.0)))
    }

    fn is_in_line(&self, (id, ticket): (u64, u64)) -> bool {
        let at = self.keyed.requests.get(&id).map(|it| it.at);
        matches!(at, Some(At::Line { ticket: now, .. }) if now == ticket)
    }

    pub(super) fn on_wakes(&mut self, (n, inc): (usize, u32), at: Micros) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let Some(mut who) = self.door_by_key(n).and_then(|door| door.wakes.remove(&at)) else {
            return;
        };
        who.retain(|it| self.is_in_line(*it));
        if who.is_empty() || self.options.mutation == Some(Mutation::GateSleeps) {
            return;
        }
        let now = self.nodes[n].clock.at(self.now);
        if self.deadline_of_line(n).is_some_and(|deadline| deadline <= now) {
            self.serve_keyed(n);
        }
        self.plan_wakes(n, who);
    }
}
