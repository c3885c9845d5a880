//! Drives what a node tells its copy of its partitions, and a process that works on them.
//! Keeps: INV-13, checked after every step: a process works on a partition from when it is shown as
//! its own until it confirms the release or its last process is gone; no two do at once.

pub(super) mod files;

use super::daemon::Part;
use super::machine::Machine;
use super::{Event, Mutation, World, name};
use crate::event::Micros;
use files::Told;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::partitions::{Owner, Partition, What};
use tandem_core::cluster::state::ClusterState;
use tandem_core::clustering::active_active::holder::{Floor, Holder, HolderView, Shown};
use tandem_core::clustering::active_passive::singleton::Action;
use tandem_core::clustering::active_passive::{Plan, Step};
use tandem_core::facts::withdrawal::Wish;
use tandem_core::facts::{NodeFacts, Process};
use tandem_core::ids::{Epoch, NodeId, PartitionId, ServiceId};
use tandem_core::spec::Seat;
use tandem_core::time::{Observed, Timestamp};

/// For a process to end its work on one partition; some never do.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// How often a process asks.
const LOOKS: (Micros, Micros) = (20_000, 300_000);

impl World {
    /// Whether the node's part of a service is a copy; else it only votes.
    pub(super) fn has_copy(&self, n: usize, s: usize) -> bool {
        !self.nodes[n].witness && s == self.own_part(n)
    }

    /// Which service the node's copy is of.
    pub(super) const fn own_part(&self, n: usize) -> usize {
        if self.work.is_some() { n } else { 0 }
    }

    pub(super) fn look<T>(
        &mut self,
        n: usize,
        look: impl FnOnce(&mut Holder, &HolderView<'_>, Timestamp) -> T,
    ) -> Option<T> {
        let agreed = self.agreed(n);
        let work = agreed.services.get(self.work.as_ref()?)?;
        let seat = agreed.services.get(self.services.get(n)?)?;
        let now = self.nodes[n].clock.at(self.now);
        let (me, daemon) = (self.nodes[n].id.clone(), self.nodes[n].daemon.as_mut()?);
        let part = &daemon.parts[n];
        let view = HolderView {
            me: &me,
            work,
            seat,
            own: &part.own,
            ends: part.ends,
            release_max: RELEASE_MAX,
        };
        Some(look(&mut daemon.holder, &view, now))
    }

    /// What a daemon does for its copy's partitions.
    pub(super) fn hold_partitions(&mut self, n: usize) {
        let at_once = self.options.mutation == Some(Mutation::ReleaseAtOnce);
        let keeps_all = self.options.mutation == Some(Mutation::AnyEpoch);
        let Some(shown) = self.show(n) else { return };
        if let Shown::These { durable: Some(floor), .. } = shown {
            return self.write_floor(n, floor);
        }
        if shown != Shown::NotYet && !self.is_put_out(n) {
            return;
        }
        let looked = self.look(n, |holder, view, now| {
            if let (true, Shown::These { partitions, .. }) = (at_once, &shown) {
                for it in partitions.iter().filter(|it| it.releasing.is_some()) {
                    let _ = holder.confirm(it.partition, it.epoch);
                }
            }
            (holder.release(view, now), holder.unwell(now))
        });
        let Some((release, unwell)) = looked else { return };
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let part = &mut daemon.parts[n];
        part.own.seat.unwell = unwell;
        let (running, process) = (part.running, part.own.process);
        if shown == Shown::NotYet {
            part.own.seat.released.clear();
        } else {
            part.own.seat.table = release.table;
            if !keeps_all {
                part.own.seat.released.clear();
            }
            part.own.seat.released.extend(release.released);
        }
        if !release.overdue.is_empty() && running.is_none() && process == Process::Primary {
            self.note(n, || format!("had its time to release {:?}", release.overdue));
            self.begin((n, n), Action::Stop);
        }
    }

    fn write_floor(&mut self, n: usize, floor: Floor) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if !std::mem::replace(&mut daemon.writing_floor, true) {
            // Some disks stall.
            let stalls = !self.options.calm && self.rng.chance(10);
            let most = if stalls { 4_000_000 } else { 15_000 };
            self.after(500, most, Event::FloorWritten { n, inc, floor });
        }
    }

    pub(super) fn on_floor(&mut self, n: usize, inc: u32, floor: Floor) {
        if !self.is_daemon(n, inc) {
            return;
        }
        if self.options.mutation != Some(Mutation::ForgetFloor) {
            self.nodes[n].floor = self.nodes[n].floor.max(floor);
        }
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.writing_floor = false;
            daemon.holder.is_durable(floor);
        }
        self.hub_changed(n);
    }

    /// A process asks what it owns, and its daemon may not answer; or it reads the file.
    pub(super) fn on_look(&mut self, n: usize, life: u64) {
        if self.nodes[n].copy.as_ref().is_none_or(|copy| copy.life != life) {
            return;
        }
        self.after(LOOKS.0, LOOKS.1, Event::Look { n, life });
        if self.nodes[n].copy.as_ref().is_some_and(|copy| copy.reads_file) {
            if let Some(shown) = self.read_file(n) {
                self.ids += 1;
                let order = self.ids;
                self.after(0, 500, Event::Saw { n, life, order, shown });
            }
            return;
        }
        if !self.nodes[n].awake() {
            return;
        }
        if let Some(shown) = self.answer(n) {
            self.ids += 1;
            let order = self.ids;
            self.after(100, 20_000, Event::Saw { n, life, order, shown });
        }
    }

    /// It begins what is its own, ends what it shall release, drops what is not there.
    pub(super) fn on_saw(&mut self, n: usize, life: u64, (order, shown): (u64, &Told)) {
        let Some(copy) = self.nodes[n].copy.as_mut().filter(|copy| copy.life == life) else {
            return;
        };
        if order < copy.saw || copy.dying {
            return;
        }
        copy.saw = order;
        let mut events = Vec::new();
        let (mut works, mut begins) = (BTreeMap::new(), BTreeMap::new());
        for it in &shown.all {
            let held = (it.partition, it.epoch);
            let does = copy.works.contains_key(&it.partition);
            match it.releasing {
                None => {
                    works.insert(it.partition, it.epoch);
                    begins.insert(it.partition, it.epoch);
                }
                Some(_) if does => {
                    works.insert(it.partition, it.epoch);
                    events.push(Event::Finish { n, life, held });
                }
                Some(_) => events.push(Event::Confirmed { n, life, held }),
            }
        }
        (copy.works, copy.begins, copy.before) = (works, begins, shown.before);
        self.end_what_is_lost(n);
        for event in events {
            // One in ten never ends its work in time.
            let slow = self.rng.chance(10) && matches!(event, Event::Finish { .. });
            let most = if slow { 6_000_000 } else { 200_000 };
            self.after(100, most, event);
        }
    }

    pub(super) fn on_finish(&mut self, n: usize, life: u64, held: (PartitionId, Epoch)) {
        // What it has begun is work on it; it looks again.
        let is_busy = self.is_busy(n, life, held.0);
        let Some(copy) = self.nodes[n].copy.as_mut().filter(|copy| copy.life == life) else {
            return;
        };
        if !is_busy && copy.works.get(&held.0) == Some(&held.1) {
            copy.works.remove(&held.0);
            self.after(100, 5_000, Event::Confirmed { n, life, held });
        }
    }

    /// Its word reaches whichever daemon is there; some answers are lost, and it says so again.
    pub(super) fn on_confirmed(&mut self, n: usize, life: u64, held: (PartitionId, Epoch)) {
        if self.nodes[n].copy.as_ref().is_none_or(|copy| copy.life != life) {
            return;
        }
        if self.nodes[n].awake() {
            let _ = self.look(n, |holder, _, _| holder.confirm(held.0, held.1));
            self.hub_changed(n);
        }
        if !self.options.calm && self.rng.chance(30) {
            self.after(1_000, 2_000_000, Event::Confirmed { n, life, held });
        }
    }

    pub(super) fn check_partitions(&mut self) {
        let mut all: BTreeMap<PartitionId, usize> = BTreeMap::new();
        let mut twice = None;
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.frozen) {
            for id in node.copy.iter().flat_map(|copy| copy.works.keys()) {
                if let Some(other) = all.insert(*id, n) {
                    twice = Some((*id, other, n));
                }
            }
        }
        if let Some((id, a, b)) = twice {
            self.violate(format!("INV-13: {} and {} work on partition {id}", name(a), name(b)));
        }
    }

    /// A copy ends, since its configuration has changed: others have its work, if there are others.
    pub(super) fn judge_start_anew(&mut self, n: usize, s: usize) {
        let Machine { id, copy, daemon, .. } = &self.nodes[n];
        let is_meant = |it: &&Part| {
            it.own.pending_restart && it.own.serving.is_some() && it.wish == Wish::Agreed
        };
        let part = daemon.as_ref().map(|daemon| &daemon.parts[s]).filter(is_meant);
        let (Some(_), Some(copy), true) = (part, copy, self.work.is_some()) else { return };
        let agreed = self.agreed(n);
        let is_other = |node: &&NodeId| *node != id && !agreed.draining.contains(*node);
        let table = self.work.as_ref().and_then(|work| agreed.services.get(work));
        let owned =
            table.and_then(|it| it.partitions.as_ref()).into_iter().flat_map(|it| it.iter());
        let is_its = |it: &Partition| it.owner.as_ref().is_some_and(|owner| owner.node == *id);
        let works = owned.filter(|(of, it)| is_its(it) && copy.works.contains_key(of)).count();
        if works > 0 && agreed.spec.data_nodes().any(|node| is_other(&node)) {
            let what = format!("{} starts anew while it works on {works} partitions", name(n));
            self.violate(format!("INV-14: {what}"));
        }
    }

    /// Whether everything is worked on, by shares that are even, and by copies as they shall be.
    pub(super) fn what_is_missing_of(&self, work: &ServiceId) -> Option<String> {
        let state = self.agreement.last().clone();
        let table = state.services.get(work)?.partitions.as_ref()?;
        self.what_is_not_worked_on(work)
            .or_else(|| self.what_is_uneven(&state, table.iter().map(|(_, it)| it)))
            .or_else(|| self.what_is_outdated())
    }

    fn what_is_outdated(&self) -> Option<String> {
        let is_old = |n: &usize| {
            let daemon = self.nodes[*n].daemon.as_ref();
            // A witness has no copy.
            let part = daemon.and_then(|daemon| daemon.parts.get(self.own_part(*n)));
            part.is_some_and(|part| part.own.pending_restart)
        };
        let waits = (0..self.nodes.len()).find(is_old)?;
        Some(format!("the copy of {} waits to start anew", name(waits)))
    }

    /// Where the agreed table has somebody who really works on it.
    fn what_is_not_worked_on(&self, work: &ServiceId) -> Option<String> {
        let table = self.agreement.last().services.get(work)?.partitions.as_ref()?;
        table.iter().find_map(|(id, it)| {
            let works = |owner: &Owner| {
                let copy = self.nodes[super::index(&owner.node)].copy.as_ref();
                copy.is_some_and(|copy| copy.works.get(&id) == Some(&it.epoch))
            };
            let is_owned = it.releasing.is_none() && it.owner.as_ref().is_some_and(works);
            (!is_owned).then(|| format!("nobody works on partition {id}: {it:?}"))
        })
    }

    /// Nodes that were lost again and again wait longer than this looks.
    fn what_is_uneven<'a>(
        &self,
        state: &ClusterState,
        table: impl Iterator<Item = &'a Partition>,
    ) -> Option<String> {
        let all: Vec<&NodeId> = state.spec.data_nodes().collect();
        let steady = |node: &&&NodeId| {
            let seat = self.services.iter().find(|it| it.as_str().ends_with(&format!("@{node}")));
            let history = seat.and_then(|seat| state.services.get(seat)).map(|it| &it.history);
            history
                .is_some_and(|all| all.iter().filter(|it| it.reason.contains("owns")).count() < 2)
        };
        let drained = all.iter().all(|node| state.draining.contains(*node));
        let fit = |node: &&&NodeId| drained || !state.draining.contains(**node);
        if all.iter().filter(steady).count() < all.len() {
            return None;
        }
        let fit: Vec<&NodeId> = all.iter().filter(fit).copied().collect();
        let owned: Vec<Option<NodeId>> =
            table.map(|it| it.owner.as_ref().map(|owner| owner.node.clone())).collect();
        let capacity = |node: &NodeId| state.spec.nodes.get(node).map_or(0, |it| it.capacity);
        let total: u32 = fit.iter().map(|node| capacity(node)).sum();
        let is_even = |node: &&&NodeId| {
            let share = owned.len() as u64 * u64::from(capacity(node));
            let (least, most) = (share / u64::from(total), share.div_ceil(u64::from(total)));
            let has = owned.iter().flatten().filter(|owner| owner == *node).count() as u64;
            (least..=most).contains(&has)
        };
        if let Some(stray) = owned.iter().flatten().find(|owner| !fit.contains(owner)) {
            return Some(format!("uneven, for {stray} is drained: {owned:?}"));
        }
        let uneven = fit.iter().find(|node| !is_even(node))?;
        Some(format!("uneven, for {uneven} with {}: {owned:?}", capacity(uneven)))
    }

    /// Who owns each partition, as agreed.
    pub fn owners(&self) -> Vec<Option<usize>> {
        let state = self.agreement.last();
        let table =
            self.work.as_ref().and_then(|work| state.services.get(work)?.partitions.as_ref());
        let owner = |it: &Partition| it.owner.as_ref().map(|owner| super::index(&owner.node));
        table.map(|table| table.iter().map(|(_, it)| owner(it)).collect()).unwrap_or_default()
    }

    /// Whether everything is worked on.
    pub fn all_worked_on(&self) -> bool {
        self.work.as_ref().is_some_and(|work| self.what_is_not_worked_on(work).is_none())
    }

    /// Starts a machine again.
    pub fn start_node(&mut self, n: usize) {
        self.on_start_daemon(n);
    }

    /// A release counts whatever epoch it was for.
    pub(super) fn spoil_facts(
        &self,
        facts: &mut BTreeMap<NodeId, Observed<NodeFacts>>,
        now: Timestamp,
    ) {
        if self.options.mutation != Some(Mutation::AnyEpoch) {
            return;
        }
        let state = self.agreement.last();
        let work = self.work.as_ref().and_then(|work| state.services.get(work));
        let Some(table) = work.and_then(|it| it.partitions.as_ref()) else { return };
        for told in facts.values_mut() {
            let mut spoilt = told.last_known().clone();
            for own in spoilt.instances.values_mut() {
                for (id, epoch) in &mut own.seat.released {
                    *epoch = table.get(*id).map_or(*epoch, |it| it.epoch);
                }
            }
            *told = Observed::new(spoilt, now.minus(told.age(now)));
        }
    }

    /// What shall be released is given at once.
    pub(super) fn spoil_plan(&self, state: &ClusterState, plan: &mut Plan) {
        if self.options.mutation != Some(Mutation::GiveWithoutProof) {
            return;
        }
        let Some(work) = &self.work else { return };
        for step in &mut plan.steps {
            let Step::Propose(ServiceCommand::Partition { changes, .. }) = step else { continue };
            for change in changes {
                if let What::Release(to) = &change.what {
                    let seat = state.services.get(&Seat::name(work, to));
                    let sitting = seat.map(|seat| seat.sitting).unwrap_or_default();
                    change.what = What::Give(Owner { node: to.clone(), sitting });
                }
            }
        }
    }
}
