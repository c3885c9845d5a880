//! Decides whether doors, copies and clients are as they shall be.
//! Keeps: INV-14, by looking at each stop that is planned: at its door's side, and at the others.

use crate::event::Micros;
use crate::singleton::{World, index, name};
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::copies::controller::LOST_AFTER;
use tandem_core::clustering::copies::copy::Wish;
use tandem_core::clustering::copies::wanted;
use tandem_core::facts::Link;
use tandem_core::ids::NodeId;
use tandem_core::spec::Timing;
use tandem_core::time::Timestamp;

/// What went wrong so shortly before may not be known yet: a message takes 0.9 s at most, and what
/// was heard counts for a second.
const UNKNOWN_FOR: Micros = 2_500_000;
/// How long a copy waits for what it has.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(3);

impl World {
    /// The truth that checks find.
    pub(super) fn is_well(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let is_there = node
            .copy
            .as_ref()
            .is_some_and(|copy| copy.ready_at <= self.now && copy.ending.is_none() && !copy.dying);
        is_there && node.powered && !node.frozen && !node.sick
    }

    /// Takes note of what is wrong, for what may not be known yet.
    pub(crate) fn check_beside(&mut self) {
        for n in 0..self.nodes.len() {
            let is_well = self.is_well(n);
            let copy = self.nodes[n].copy.as_ref();
            let is_planned = copy.is_some_and(|copy| copy.ending.is_some());
            let was_well = self.side.well.contains(&n);
            if is_well {
                self.side.well.insert(n);
            } else if was_well && !is_planned {
                self.copy_failed(n);
            } else if was_well {
                self.side.well.remove(&n);
            }
            for peer in 0..n {
                let silent = !self.nodes[n].awake() || !self.nodes[peer].awake();
                if silent || !self.net.both(n, peer) || self.net.loss_percent > 0 {
                    self.side.apart.insert((peer, n), self.now);
                }
            }
        }
    }

    /// A copy ended that no plan had stopped.
    pub(crate) fn copy_failed(&mut self, n: usize) {
        self.side.well.remove(&n);
        self.side.failed.insert(n, self.now);
    }

    /// Whether two nodes may not know of each other what was so a moment ago.
    fn were_apart(&self, a: usize, b: usize) -> bool {
        let last = self.side.apart.get(&(a.min(b), a.max(b)));
        last.is_some_and(|at| self.now < *at + UNKNOWN_FOR)
    }

    /// Nodes whose doors the copy of `n` has to wait for.
    pub(super) fn doors_heard(&self, n: usize) -> BTreeSet<usize> {
        (0..self.nodes.len()).filter(|door| self.waits_for(n, *door)).collect()
    }

    fn waits_for(&self, n: usize, door: usize) -> bool {
        if self.nodes[door].daemon.is_none() || !self.nodes[door].powered {
            return false;
        }
        let now = self.nodes[n].clock.at(self.now);
        let id = &self.nodes[door].id;
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return false };
        let told = daemon.parts[0].hub.facts.get(id);
        let suspicion = Timing::of_command().suspicion;
        let start = u64::from(self.nodes[door].daemons);
        let is_heard = told
            .and_then(|told| told.fresh(now, suspicion))
            .is_some_and(|told| told.told.start == start);
        // One that a daemon has not heard in all its time may be there for as long.
        let is_new = told.is_none()
            && self.own_facts(n).is_some_and(
                |own| matches!(own.links.get(id), Some(Link::Never(age)) if *age < LOST_AFTER),
            );
        door == n || is_heard || is_new || !self.were_apart(n, door)
    }

    /// A plan stops the copy of a node; the doors that it had to wait for, until its time was over.
    pub(super) fn judge_stop_beside(
        &mut self,
        n: usize,
        is_unwanted: bool,
        now: Timestamp,
    ) -> BTreeSet<usize> {
        self.side.stopped += 1;
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return BTreeSet::new() };
        let (own, wish) = (daemon.parts[0].own.clone(), daemon.parts[0].wish);
        let Some(since) = own.withdrawn else {
            self.violate(format!("INV-14: {} stops and did not withdraw", name(n)));
            return BTreeSet::new();
        };
        let is_in_time = now < since.plus(DRAIN_MAX);
        let heard = if is_in_time { self.doors_heard(n) } else { BTreeSet::new() };
        self.judge_doors(n, &heard);
        if own.serving.is_some() && self.is_well(n) {
            self.judge_last(n);
            if !is_unwanted && wish == Wish::Agreed {
                self.judge_turn(n);
            }
        }
        heard
    }

    fn judge_doors(&mut self, n: usize, heard: &BTreeSet<usize>) {
        let id = self.nodes[n].id.clone();
        for door in heard.iter().copied() {
            let leads = |it: &crate::singleton::daemon::Daemon| it.door.takers.contains(&id);
            if self.nodes[door].daemon.as_deref().is_some_and(leads) {
                let what = format!("{} stops, and {} leads there", name(n), name(door));
                return self.violate(format!("INV-14: {what}"));
            }
            let cut = self.in_flight(door, &id);
            if cut > 0 {
                let what = format!("{} stops, and cuts {cut} of {}", name(n), name(door));
                return self.violate(format!("INV-14: {what}"));
            }
        }
    }

    /// The nodes on which a copy shall run for long, by what is agreed.
    fn shall_run(&self, state: &ClusterState) -> BTreeSet<usize> {
        let service = &self.services[0];
        let found = state.services.get(service).zip(state.spec.services.get(service));
        let Some((agreed, spec)) = found else { return BTreeSet::new() };
        let all = wanted(&state.spec.nodes, spec, &agreed.copies);
        all.iter().filter(|node| !state.draining.contains(*node)).map(index).collect()
    }

    fn judge_last(&mut self, n: usize) {
        let others = (0..self.nodes.len()).filter(|it| *it != n && !self.nodes[*it].witness);
        let others: Vec<usize> = others.collect();
        let has_failed = |it: &usize| {
            let failed = self.side.failed.get(it);
            failed.is_some_and(|at| self.now < *at + UNKNOWN_FOR)
        };
        let serves = |it: &usize| {
            let withdrew =
                |daemon: &crate::singleton::daemon::Daemon| daemon.parts[0].own.withdrawn.is_some();
            self.is_well(*it) && !self.nodes[*it].daemon.as_deref().is_some_and(withdrew)
        };
        let is_alone = self.shall_run(&self.agreed(n)).iter().all(|it| *it == n);
        if !is_alone && !others.iter().any(serves) && !others.iter().any(has_failed) {
            self.violate(format!("INV-14: {} was the last that served, and stops", name(n)));
        }
    }

    /// Of those that start anew at most one is away.
    fn judge_turn(&mut self, n: usize) {
        let shall = self.shall_run(&self.agreed(n));
        let is_known = |it: &usize| {
            let failed = self.side.failed.get(it);
            failed.is_none_or(|at| self.now >= *at + UNKNOWN_FOR) && !self.were_apart(n, *it)
        };
        let away = self.side.away.iter().copied();
        let away: Vec<usize> =
            away.filter(|it| *it != n && shall.contains(it) && is_known(it)).collect();
        self.side.away.insert(n);
        if let Some(other) = away.first() {
            let what = format!("{} starts anew, and {} is not back", name(n), name(*other));
            self.violate(format!("INV-14: {what}"));
        }
    }

    /// A copy is well, from its daemon's view: it is back.
    pub(super) fn is_back(&mut self, n: usize) {
        self.side.away.remove(&n);
    }

    /// A request came to a copy that takes none.
    pub(super) fn judge_refused(&mut self, n: usize, door: usize) {
        let ending = self.nodes[n].copy.as_ref().and_then(|copy| copy.ending.as_ref());
        if ending.is_some_and(|ending| ending.heard.contains(&door)) {
            let what = format!("{} sends to {}, which a plan stopped", name(door), name(n));
            self.violate(format!("INV-14: {what}"));
        }
    }

    /// Whether every copy that shall run does, every door leads to all of them, and clients are
    /// served.
    pub(crate) fn what_is_missing_beside(&self) -> Option<String> {
        let state = self.agreement.last();
        let service = &self.services[0];
        let (agreed, spec) = state.services.get(service).zip(state.spec.services.get(service))?;
        let shall = self.shall_run(state);
        let replicas = spec.copies.and_then(|copies| copies.replicas);
        let data = self.nodes.iter().filter(|it| !it.witness && !state.draining.contains(&it.id));
        let most = data.count();
        if replicas.is_some_and(|count| shall.len() < most.min(count as usize)) {
            return Some(format!("{shall:?} shall run, of {replicas:?}"));
        }
        if let Some(turn) = &agreed.copies.turn {
            return Some(format!("it is still the turn of {turn}"));
        }
        (0..self.nodes.len()).find_map(|n| {
            let of_copy = self.what_is_missing_of_copy(n, &shall, agreed.copies.term.0);
            of_copy.or_else(|| self.what_is_missing_of_door(n, &shall))
        })
    }

    fn what_is_missing_of_copy(
        &self,
        n: usize,
        shall: &BTreeSet<usize>,
        term: u64,
    ) -> Option<String> {
        let node = &self.nodes[n];
        let own = &node.daemon.as_ref()?.parts[0].own;
        if !shall.contains(&n) {
            let runs = node.copy.is_some() && !shall.is_empty();
            return runs.then(|| format!("{} runs one that nobody wants", name(n)));
        }
        let is_new = own.promoted.0 >= term && node.disks[0].recipe == self.side.recipe;
        let is_there = self.is_well(n) && own.serving.is_some() && own.withdrawn.is_none();
        (!is_there || !is_new).then(|| format!("{} has none that is well: {own:?}", name(n)))
    }

    fn what_is_missing_of_door(&self, n: usize, shall: &BTreeSet<usize>) -> Option<String> {
        let daemon = self.nodes[n].daemon.as_ref()?;
        let takers: BTreeSet<usize> =
            daemon.door.takers.iter().map(|it: &NodeId| index(it)).collect();
        if takers != *shall && !shall.is_empty() {
            return Some(format!("the door of {} leads to {takers:?}, not {shall:?}", name(n)));
        }
        let is_served = self.side.served.get(&n).is_some_and(|at| self.now < *at + 1_000_000);
        (!is_served && !shall.is_empty()).then(|| format!("nobody is served by {}", name(n)))
    }
}
