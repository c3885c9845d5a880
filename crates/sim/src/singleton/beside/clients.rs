//! Drives clients of the doors: each request looks for a copy, is worked on there, and comes back;
//! what carried nothing is tried elsewhere.

use super::Event;
use crate::event::Micros;
use crate::singleton::{Event as Outer, World, index, name};
use std::collections::BTreeSet;
use tandem_core::ids::NodeId;

/// Between two clients of one door.
const CLIENTS: (Micros, Micros) = (20_000, 150_000);
/// A client waits so long for a copy that takes its request.
const HOLD_MAX: Micros = 10_000_000;
/// While nobody does, it is looked again.
const LOOK_AGAIN: Micros = 50_000;
/// A connect, or an answer, is waited for so long.
const CONNECT_MAX: Micros = 1_000_000;
const ANSWER_MAX: Micros = 12_000_000;
/// What did not get through is sent again.
const AGAIN: Micros = 100_000;

/// A client that is being served.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// At whose door, of which daemon.
    pub door: usize,
    inc: u32,
    /// When it came.
    since: Micros,
    /// How long a copy works on it.
    lasts: Micros,
    /// Who refused it.
    refused: BTreeSet<usize>,
    /// Who was chosen, and when.
    pub to: Option<(usize, Micros)>,
    /// Which copy works on it.
    pub life: Option<u64>,
    /// The copy is done, or gone.
    over: bool,
}

impl World {
    fn push_beside(&mut self, at: Micros, event: Event) {
        self.push(at, Outer::Beside(event));
    }

    /// From one node to another, or to itself.
    fn way(&mut self, from: usize, to: usize) -> Micros {
        let most = if from == to { 300 } else { 3_000 };
        self.now + self.rng.between(50, most)
    }

    pub(super) fn on_client(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        self.after(CLIENTS.0, CLIENTS.1, Outer::Beside(Event::Client { n, inc }));
        let lasts = match self.rng.below(20) {
            0..16 => self.rng.between(500, 50_000),
            16..19 => self.rng.between(50_000, 1_500_000),
            // Longer than a copy waits for it.
            _ => self.rng.between(1_500_000, 9_000_000),
        };
        self.ids += 1;
        let id = self.ids;
        let request = Request {
            door: n,
            inc,
            since: self.now,
            lasts,
            refused: BTreeSet::new(),
            to: None,
            life: None,
            over: false,
        };
        self.side.requests.insert(id, request);
        self.on_asks(n, inc, id);
    }

    /// What a door has at a node that is not over.
    pub(super) fn in_flight(&self, n: usize, node: &NodeId) -> u32 {
        let (inc, to) = (self.nodes[n].daemons, index(node));
        let is_it = |it: &&Request| {
            it.door == n && it.inc == inc && it.to.is_some_and(|(copy, _)| copy == to)
        };
        self.side.requests.values().filter(is_it).count() as u32
    }

    /// It looks for a copy.
    pub(super) fn on_asks(&mut self, n: usize, inc: u32, id: u64) {
        if !self.is_daemon(n, inc) {
            self.side.requests.remove(&id);
            return;
        }
        let Some(request) = self.side.requests.get(&id).filter(|it| it.to.is_none()) else {
            return;
        };
        if self.now >= request.since + HOLD_MAX {
            self.side.requests.remove(&id);
            return;
        }
        let Some(daemon) = self.nodes[n].daemon.as_ref() else { return };
        let takers: Vec<usize> = daemon.door.takers.iter().map(index).collect();
        let fresh: Vec<usize> =
            takers.iter().copied().filter(|to| !request.refused.contains(to)).collect();
        if fresh.is_empty() {
            // Another round.
            if let Some(request) = self.side.requests.get_mut(&id) {
                request.refused.clear();
            }
            return self.push_beside(self.now + LOOK_AGAIN, Event::Asks { n, inc, id });
        }
        let to = fresh[self.rng.below(fresh.len())];
        let now = self.now;
        if let Some(request) = self.side.requests.get_mut(&id) {
            request.to = Some((to, now));
        }
        self.trace.note(now, || format!("{}: request {id} goes to {}", name(n), name(to)));
        let at = self.way(n, to);
        self.push_beside(at, Event::Arrives { n: to, id });
        self.push_beside(now + CONNECT_MAX, Event::Answered { n, inc, id });
        self.push_beside(now + ANSWER_MAX, Event::Answered { n, inc, id });
    }

    pub(super) fn on_arrives(&mut self, n: usize, id: u64) {
        let Some(request) = self.side.requests.get(&id) else { return };
        let (door, since) = (request.door, request.to);
        if request.life.is_some() || since.is_none_or(|(to, _)| to != n) {
            return;
        }
        if !self.net.both(door, n) {
            return self.push_beside(self.now + AGAIN, Event::Arrives { n, id });
        }
        let takes = self.nodes[n]
            .copy
            .as_ref()
            .is_some_and(|copy| !copy.dying && copy.ending.is_none() && copy.ready_at <= self.now);
        if !takes {
            self.judge_refused(n, door);
            return self.refuse(n, id);
        }
        let (life, lasts) = (self.nodes[n].copy.as_ref().map(|copy| copy.life), request.lasts);
        if let Some(request) = self.side.requests.get_mut(&id) {
            request.life = life;
        }
        self.push_beside(self.now + lasts, Event::Ends { n, id });
    }

    /// Nothing was sent: it goes elsewhere.
    fn refuse(&mut self, n: usize, id: u64) {
        let at = self.now + self.rng.between(50, 3_000);
        let Some(request) = self.side.requests.get_mut(&id) else { return };
        let (door, inc) = (request.door, request.inc);
        request.refused.insert(n);
        (request.to, request.life) = (None, None);
        self.push_beside(at, Event::Asks { n: door, inc, id });
        self.plan_guide(door);
    }

    /// The copy has done it.
    pub(super) fn on_ends(&mut self, n: usize, id: u64) {
        let Some(request) = self.side.requests.get(&id) else { return };
        let (door, inc) = (request.door, request.inc);
        let copy = self.nodes[n].copy.as_ref().map(|copy| copy.life);
        if request.life.is_none() || request.life != copy {
            return;
        }
        if !self.net.both(door, n) {
            return self.push_beside(self.now + AGAIN, Event::Ends { n, id });
        }
        if let Some(request) = self.side.requests.get_mut(&id) {
            request.over = true;
        }
        self.side.answered += 1;
        self.side.served.insert(door, self.now);
        let at = self.way(n, door);
        self.push_beside(at, Event::Answered { n: door, inc, id });
    }

    /// The copy is gone with all that it worked on.
    pub(crate) fn cut_requests(&mut self, n: usize, life: u64) {
        let cut = self.side.requests.iter_mut().filter(|(_, it)| it.life == Some(life));
        let cut: Vec<(u64, usize, u32)> = cut
            .map(|(id, it)| {
                it.over = true;
                (*id, it.door, it.inc)
            })
            .collect();
        for (id, door, inc) in cut {
            // Behind a cut nobody hears of it.
            let most = if self.net.both(door, n) { 3_000 } else { ANSWER_MAX };
            let at = self.now + self.rng.between(50, most);
            self.push_beside(at, Event::Answered { n: door, inc, id });
        }
    }

    /// The door hears that it is over, or waited for too long.
    pub(super) fn on_answered(&mut self, n: usize, inc: u32, id: u64) {
        let Some(request) = self.side.requests.get(&id) else { return };
        let Some((to, chosen)) = request.to else { return };
        let is_late = self.now >= chosen + ANSWER_MAX;
        let unreached = request.life.is_none() && self.now >= chosen + CONNECT_MAX;
        if request.inc != inc || !(request.over || is_late || unreached) {
            return;
        }
        if unreached && !request.over {
            return self.refuse(to, id);
        }
        self.side.requests.remove(&id);
        let withdrew = self.nodes[n]
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.door.uses.keys().any(|node| index(node) == to));
        if withdrew {
            self.plan_guide(n);
        }
    }

    /// A daemon is gone, and its door with all that it had.
    pub(crate) fn drop_requests(&mut self, n: usize) {
        self.side.requests.retain(|_, request| request.door != n);
    }
}
