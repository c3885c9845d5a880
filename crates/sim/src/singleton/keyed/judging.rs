//! Decides whether requests get to whoever owns their partition, from the truth that nobody in the
//! cluster knows as a whole.
//! Keeps: INV-15: a copy begins and answers only what it owns then, under the epoch that it was led
//! by or a later one; a door leads by the newest that its node knows; whoever waits goes on soon
//! after somebody takes it, and waits no longer than may be; whoever turned a request away is asked
//! by one in each 0.1 s; nobody waits for a copy of which its door knows that it is gone, and for
//! no other reason is anybody cut.

mod known;
mod lost;

use super::clients::{At, Request, Why};
use super::worker::Work;
use super::{ANSWER_MAX, Event, Sent};
use crate::event::Micros;
use crate::singleton::{World, index, name};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::cluster::partitions::{Owner, Partition};
use tandem_core::clustering::load_balanced::attempts::PACE;
use tandem_core::facts::{InstanceFacts, Process};
use tandem_core::ids::{Epoch, PartitionId, Term};
use tandem_core::spec::Timing;

/// How often it is looked.
const LOOKS: Micros = 40_000;
/// A door is a task of its own, and some daemons have much else to do.
const DOOR_LATE: Micros = 400_000;
/// From when a copy takes it until its door leads there: a node says how it is with each heartbeat.
const LEADS_WITHIN: Micros = 1_000_000;
/// From then until somebody who waits goes there: a pause, a look, one that asks for all.
const GOES_WITHIN: Micros = 700_000;
/// Clocks differ, by a hundredth.
const TOLERANCE: Micros = 5_000;

/// Which copy of which node is led to, under which epoch, and since when that is so.
type Since = ((usize, u64, Epoch), Micros);

/// What is remembered for the judgement, by door and partition.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Somebody owns it and takes it, and the door could know.
    could_lead: BTreeMap<(usize, PartitionId), Since>,
    /// The door leads to whoever takes it.
    could_go: BTreeMap<(usize, PartitionId), Since>,
    /// What the door's node knows: the epoch, and whether it is being released.
    known: BTreeMap<(usize, PartitionId), (Epoch, bool, Micros)>,
    /// Why whoever owns it does not take it, as the door's node knows, and since when.
    away: BTreeMap<(usize, PartitionId), (known::Away, Micros)>,
    /// Since when it hears a majority.
    heard: BTreeMap<usize, Micros>,
    /// The daemon of the door, and since when it is awake.
    awake: BTreeMap<usize, (u32, Micros)>,
    /// The sitting of a node's copy that the door's node knows of, and since when.
    sittings: BTreeMap<(usize, usize), (Term, Micros)>,
    turned: BTreeMap<(usize, PartitionId), Turned>,
    served: BTreeMap<usize, Micros>,
    /// Whose each partition is, from which epoch on, by so many agreed states.
    owners: BTreeMap<PartitionId, (Owner, Epoch)>,
    /// Whose each was, by epoch.
    past: BTreeMap<(PartitionId, Epoch), Owner>,
    seen: usize,
}

/// An owner that turned a request away.
#[derive(Clone, Copy, Debug)]
struct Turned {
    inc: u32,
    epoch: Epoch,
    /// When the last one came back that it turned away.
    heard: Micros,
    /// When it was asked last.
    asked: Micros,
}

/// What goes on, once it does, for as long as it is the same.
fn since(all: &mut BTreeMap<(usize, PartitionId), Since>, at: (usize, PartitionId), is: Since) {
    let entry = all.entry(at).or_insert(is);
    if entry.0 != is.0 {
        *entry = is;
    }
}

impl World {
    fn broken(&mut self, what: String) {
        self.violate(format!("INV-15: {what}"));
    }

    fn agreed_of(&self, partition: PartitionId) -> Option<Partition> {
        let state = self.agreement.last();
        state.services.get(self.work.as_ref()?)?.partitions.as_ref()?.get(partition).cloned()
    }

    /// By what is agreed, known to its node or not, its copy owns that, and nobody else did since
    /// the epoch that it knows of: what was asked back and is kept after all has another one.
    fn owns(&mut self, work: &Work) -> bool {
        self.note_owners();
        let Some(it) = self.agreed_of(work.partition) else { return true };
        let Some((owner, first)) = self.keyed.judged.owners.get(&work.partition) else {
            return true;
        };
        index(&owner.node) == work.n && (*first..=it.epoch).contains(&work.epoch)
    }

    pub(super) fn judge_begins(&mut self, work: &Work, it: &Sent) {
        let Work { n, partition, epoch, .. } = *work;
        if !self.owns(work) || epoch < it.routed.epoch {
            let agreed = self.agreed_of(partition);
            let what = format!("partition {partition} under {epoch} of {it:?}: {agreed:?}");
            return self.broken(format!("{} begins what it does not own, {what}", name(n)));
        }
        let elsewhere = self.keyed.works.values().find(|other| {
            other.partition == partition && other.n != n && !self.nodes[other.n].frozen
        });
        if let Some(other) = elsewhere.map(|other| other.n) {
            let (a, b) = (name(n), name(other));
            self.broken(format!("{a} and {b} work on requests of partition {partition}"));
        }
    }

    pub(super) fn judge_ends(&mut self, work: &Work) {
        let does = self.nodes[work.n]
            .copy
            .as_ref()
            .is_some_and(|copy| copy.life == work.life && copy.works.contains_key(&work.partition));
        if !does || !self.owns(work) {
            let (n, partition) = (name(work.n), work.partition);
            self.broken(format!("{n} answers, and does not own partition {partition}"));
        }
    }

    pub(super) fn judge_sent(&mut self, it: &Sent) {
        let (n, at) = (it.door, (it.door, it.routed.partition));
        let what = format!("{} leads {:?} to {}", name(n), it.routed, name(it.to));
        let awake = self.keyed.judged.awake.get(&n).is_some_and(|(inc, _)| *inc == it.inc);
        let is_old = |since: &Micros| awake && self.now > *since + DOOR_LATE;
        if let Some((epoch, is_releasing, since)) = self.keyed.judged.known.get(&at)
            && is_old(since)
            && (*epoch > it.routed.epoch || *epoch == it.routed.epoch && *is_releasing)
        {
            let what = format!("{what}, and knew of {epoch}, releasing {is_releasing}");
            return self.broken(what);
        }
        if let Some((why, since)) = self.keyed.judged.away.get(&at).filter(|it| is_old(&it.1)) {
            let ago = (self.now - since) / 1000;
            return self.broken(format!("{what}, and knew for {ago} ms: {why:?}"));
        }
        let heard = self.keyed.judged.heard.get(&n).copied();
        let silent = self.silent_for(n, it.to);
        let late = Duration::from_micros(DOOR_LATE);
        if heard.is_some_and(|since| is_old(&since) && self.hears_majority(n))
            && silent.is_none_or(|age| age > Timing::of_command().suspicion + late)
        {
            return self.broken(format!("{what}, silent for {silent:?}"));
        }
        let (now, pace) = (self.now, PACE.as_micros() as Micros - TOLERANCE);
        let Some(turned) = self.keyed.judged.turned.get_mut(&at) else { return };
        if turned.inc == it.inc && turned.epoch == it.routed.epoch {
            let asked = std::mem::replace(&mut turned.asked, now);
            if now < asked + pace {
                let ago = (now - asked) / 1000;
                self.broken(format!("{what}, which turned somebody away, and asked {ago} ms ago"));
            }
        }
    }

    pub(super) fn judge_turned_away(&mut self, it: &Sent) {
        let (at, epoch, now) = ((it.door, it.routed.partition), it.routed.epoch, self.now);
        let owner = self.door_by_key(it.door).and_then(|door| door.owners.owner(at.1));
        let all = &mut self.keyed.judged.turned;
        if owner.is_some_and(|owner| owner.epoch != epoch) {
            return;
        }
        match all.get_mut(&at).filter(|turned| turned.inc == it.inc && turned.epoch >= epoch) {
            Some(turned) if turned.epoch == epoch => turned.heard = now,
            Some(_) => {}
            None => {
                all.insert(at, Turned { inc: it.inc, epoch, heard: now, asked: now });
            }
        }
    }

    pub(super) fn judge_taken(&mut self, it: &Sent) {
        self.keyed.judged.served.insert(it.door, self.now);
        let at = (it.door, it.routed.partition);
        // What was on its way when one was turned away says nothing of now.
        let turned = self.keyed.judged.turned.get(&at);
        if turned.is_some_and(|turned| turned.epoch <= it.routed.epoch && it.at > turned.heard) {
            self.keyed.judged.turned.remove(&at);
        }
    }

    /// What a client is told has the reason that it is told.
    pub(super) fn judge_failed(&mut self, n: usize, it: &Request, why: Why) {
        let waited = self.now - it.waits_since;
        let hold_max = self.keyed.limits.hold_max.as_micros() as Micros;
        let had = matches!(it.at, At::Sent { .. });
        let is_right = match why {
            Why::Expired => waited + hold_max / 50 + TOLERANCE >= hold_max,
            Why::Crowded => {
                let max = self.keyed.limits.held_max;
                self.door_by_key(n).is_some_and(|door| door.line.len() >= max)
            }
            Why::Broken => !it.repeatable && had || it.repeatable && (it.unpaid || it.no >= 3),
            Why::Late => matches!(it.at, At::Sent { sent, .. } if self.now >= sent.at + ANSWER_MAX),
            Why::TurnedAway => it.long,
            Why::Lost => !it.repeatable && had,
        };
        if !is_right {
            self.broken(format!("{} tells {why:?} after {waited} us: {it:?}", name(n)));
        }
    }

    pub(super) fn judge_keyed(&mut self) {
        self.push_keyed(self.now + LOOKS, Event::Judge);
        for n in 0..self.nodes.len() {
            let inc = self.nodes[n].daemons;
            let is_same = self.keyed.judged.awake.get(&n).is_some_and(|(it, _)| *it == inc);
            if !is_same || !self.nodes[n].awake() {
                self.forget_door(n);
            }
            if !self.nodes[n].awake() {
                continue;
            }
            self.keyed.judged.awake.entry(n).or_insert((inc, self.now));
            self.note_heard(n);
            self.note_away(n);
            self.judge_lost(n);
            let agreed = self.agreed(n);
            let table = self.work.as_ref().and_then(|work| agreed.services.get(work));
            let table = table.and_then(|it| it.partitions.as_ref());
            if table.is_none() {
                // Taken out: nothing is anybody's.
                self.forget_door(n);
            }
            for (partition, it) in table.into_iter().flat_map(|table| table.iter()) {
                self.note_known(n, partition, it);
                self.judge_leads(n, partition, it);
            }
        }
        self.judge_waiting();
    }

    fn forget_door(&mut self, n: usize) {
        let Judged { could_lead, could_go, known, away, heard, awake, sittings, .. } =
            &mut self.keyed.judged;
        away.retain(|(door, _), _| *door != n);
        sittings.retain(|(door, _), _| *door != n);
        could_lead.retain(|(door, _), _| *door != n);
        could_go.retain(|(door, _), _| *door != n);
        known.retain(|(door, _), _| *door != n);
        heard.remove(&n);
        awake.remove(&n);
    }

    /// The copy that would take a request now, which comes from there.
    fn taker(
        &self,
        (n, partition): (usize, PartitionId),
        (to, epoch): (usize, Epoch),
    ) -> Option<(usize, u64, Epoch)> {
        let node = &self.nodes[to];
        let copy = node.copy.as_ref().filter(|copy| !copy.dying)?;
        let owns =
            copy.begins.get(&partition).is_some_and(|own| *own >= epoch && copy.before < epoch);
        let is_there = node.powered && !node.frozen && self.net.both(n, to);
        (is_there && owns).then_some((to, copy.life, epoch))
    }

    /// What the copy's own node says of it, which the door may not have heard.
    fn says_so(&self, to: usize) -> bool {
        let says = |own: &InstanceFacts| own.process == Process::Primary && own.serving.is_some();
        let daemon = self.nodes[to].daemon.as_ref().filter(|_| self.nodes[to].awake());
        daemon.is_some_and(|daemon| says(&daemon.parts[to].own))
    }

    fn judge_leads(&mut self, n: usize, partition: PartitionId, it: &Partition) {
        let (now, at) = (self.now, (n, partition));
        let leads = self.door_by_key(n).and_then(|door| door.owners.owner(partition));
        let leads = leads.map(|owned| (owned.address, owned.epoch));
        let owner = it.owner.as_ref().filter(|_| it.releasing.is_none());
        let owner = owner.map(|owner| (index(&owner.node), it.epoch));
        let is_clear = self.net.loss_percent == 0;
        let is_newest = self.agreed_of(partition).is_some_and(|newest| newest.epoch == it.epoch);
        let knows = owner.filter(|it| is_clear && is_newest && self.says_so(it.0));
        let knows = knows.and_then(|it| self.taker(at, it));
        let max = self.keyed.limits.in_flight_max;
        let door = (n, self.nodes[n].daemons);
        let goes = leads.filter(|it| max == usize::MAX || self.keyed.in_flight(door, it.0) < max);
        let goes = goes.and_then(|it| self.taker(at, it));
        let judged = &mut self.keyed.judged;
        match goes {
            Some(it) => since(&mut judged.could_go, at, (it, now)),
            None => _ = judged.could_go.remove(&at),
        }
        let Some(it) = knows else {
            judged.could_lead.remove(&at);
            return;
        };
        since(&mut judged.could_lead, at, (it, now));
        let is_old = judged.could_lead[&at].1 + LEADS_WITHIN < now;
        if is_old && leads != owner {
            let (n, to) = (name(n), name(it.0));
            self.broken(format!("{n} does not lead partition {partition} to {to}, but {leads:?}"));
        }
    }

    /// Whoever waits goes on once somebody takes it, and waits no longer than may be.
    fn judge_waiting(&mut self) {
        let hold_max = self.keyed.limits.hold_max.as_micros() as Micros;
        let hold_max = hold_max + hold_max / 50 + TOLERANCE;
        let now = self.now;
        let judged = &self.keyed.judged;
        let asleep = |it: &Request| {
            let At::Line { since, .. } = it.at else { return false };
            let could = judged.could_go.get(&(it.door, it.partition));
            could.is_some_and(|(_, could)| now > since.max(*could) + GOES_WITHIN)
        };
        let forgotten = |it: &Request| {
            let awake = judged.awake.get(&it.door);
            !matches!(it.at, At::Sent { .. })
                && now > it.waits_since + hold_max
                && awake.is_some_and(|(_, since)| now > since + DOOR_LATE)
        };
        let found = self.keyed.requests.iter().find(|(_, it)| asleep(it) || forgotten(it));
        if let Some((id, it)) = found {
            let (what, n) = (if asleep(it) { "is not woken" } else { "is held" }, name(it.door));
            let waited = (now - it.waits_since) / 1000;
            let partition = it.partition;
            self.broken(format!(
                "request {id} of partition {partition} {what} at {n} after {waited} ms"
            ));
        }
    }

    /// Whether every door leads everything to its owner, and clients are served.
    pub(crate) fn what_is_missing_of_keys(&self) -> Option<String> {
        let state = self.agreement.last();
        let work = self.work.as_ref().filter(|_| self.options.keyed)?;
        let table = state.services.get(work)?.partitions.as_ref()?;
        (0..self.nodes.len()).find_map(|n| {
            let door = &self.nodes[n].daemon.as_ref()?.keyed;
            let is_led = |id: PartitionId, it: &Partition| {
                let owner = it.owner.as_ref().map(|owner| (index(&owner.node), it.epoch));
                door.owners.owner(id).map(|it| (it.address, it.epoch)) == owner
            };
            let wrong = table.iter().find(|(id, it)| !is_led(*id, it));
            if let Some((id, it)) = wrong {
                let leads = door.owners.owner(id);
                return Some(format!("{} leads {id} to {leads:?}, not {it:?}", name(n)));
            }
            let is_served = self.keyed.judged.served.get(&n);
            let is_served = is_served.is_some_and(|at| self.now < *at + 8_000_000);
            (!is_served).then(|| format!("nobody is served by {}", name(n)))
        })
    }
}
