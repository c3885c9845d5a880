//! Drives clients of the doors: each request waits for whoever owns its partition, is sent there,
//! and comes back, or goes on looking.
//! Not here: the same in the shell (`proxy/http/exchange.rs`, `reach.rs`).

use super::{ANSWER_MAX, CONNECT_MAX, Event, How, Sent, Side};
use crate::event::Micros;
use crate::singleton::{Event as Outer, Mutation, World, name};
use std::rc::Rc;
use tandem_core::clustering::load_balanced::attempts::{Attempts, Failure, Next, PACE};
use tandem_core::ids::PartitionId;
use tandem_core::time::Timestamp;

/// A client that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// At whose door, of which daemon.
    pub door: usize,
    pub inc: u32,
    pub partition: PartitionId,
    /// What is done twice is done once.
    pub repeatable: bool,
    /// Its body is too long to be kept.
    pub long: bool,
    /// How long a copy works on it.
    pub lasts: Micros,
    /// When it came; or broke where it was, so that it waits anew.
    pub waits_since: Micros,
    /// When it is told that nobody took it.
    pub hold: Timestamp,
    pub attempts: Attempts<usize>,
    /// How often it was sent.
    pub no: u32,
    /// The budget did not pay for another time.
    pub unpaid: bool,
    pub at: At,
}

/// Where it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// With those who wait.
    Line { ticket: u64, since: Micros },
    /// It asks nobody for a moment.
    Pauses,
    /// On its way, or at a copy.
    Sent { sent: Sent, is_reached: bool },
}

/// Why a client is told that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody took it in time: 503.
    Expired,
    /// As many wait as may: 503.
    Crowded,
    /// A copy may have done it: 502.
    Broken,
    /// No answer in time: 504.
    Late,
    /// Whoever had it is gone: 504.
    Lost,
    /// It cannot be sent once more: 421.
    TurnedAway,
}

impl Side {
    /// All that is on its way, or at a copy.
    pub(super) fn sent(&self) -> impl Iterator<Item = Sent> {
        self.requests.values().filter_map(|it| match it.at {
            At::Sent { sent, .. } => Some(sent),
            At::Line { .. } | At::Pauses => None,
        })
    }

    /// What a door has at a node's copy.
    pub(super) fn in_flight(&self, (n, inc): (usize, u32), to: usize) -> usize {
        let is_it = |it: &&Request| {
            it.door == n && it.inc == inc && matches!(it.at, At::Sent { sent, .. } if sent.to == to)
        };
        let is_read = |it: &&Sent| it.door == n && it.inc == inc && it.to == to;
        let reads = self.reads.values().filter(is_read).count();
        self.requests.values().filter(is_it).count() + reads
    }
}

impl World {
    /// From one node to another, or to itself.
    pub(super) fn way_of_request(&mut self, from: usize, to: usize) -> Micros {
        let most = if from == to { 300 } else { 3_000 };
        self.now + self.rng.between(50, most)
    }

    pub(super) fn on_keyed_client(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let (low, high) = self.keyed.limits.clients;
        self.after(low, high, Outer::Keyed(Event::Client { n, inc }));
        let lasts = match self.rng.below(20) {
            0..16 => self.rng.between(500, 50_000),
            16..19 => self.rng.between(50_000, 1_500_000),
            // Longer than a copy may take to release its partition.
            _ => self.rng.between(1_500_000, 9_000_000),
        };
        let key = self.rng.bits();
        let hold = self.nodes[n].clock.at(self.now).plus(self.keyed.limits.hold_max);
        let Some(door) = self.door_by_key(n) else { return };
        door.budget.request();
        let partition = door.owners.partition(key);
        self.ids += 1;
        let id = self.ids;
        let request = Request {
            door: n,
            inc,
            partition,
            repeatable: self.rng.chance(70),
            long: self.rng.chance(5),
            lasts,
            waits_since: self.now,
            hold,
            attempts: Attempts::default(),
            no: 0,
            unpaid: false,
            at: At::Pauses,
        };
        self.keyed.requests.insert(id, request);
        self.plan_end_of_wait(n, id);
        self.ask_keyed(n, id);
    }

    fn plan_end_of_wait(&mut self, n: usize, id: u64) {
        let Some(hold) = self.keyed.requests.get(&id).map(|it| it.hold) else { return };
        let (at, inc) = (self.nodes[n].clock.when(hold), self.nodes[n].daemons);
        self.push_keyed(at, Event::Expires { n, inc, id });
    }

    pub(super) fn on_expires(&mut self, n: usize, inc: u32, id: u64) {
        let now = self.nodes[n].clock.at(self.now);
        if !self.is_daemon(n, inc) || self.options.mutation == Some(Mutation::HoldForEver) {
            return;
        }
        let Some(request) = self.keyed.requests.get(&id).filter(|it| it.hold <= now) else {
            return;
        };
        let frees = matches!(request.at, At::Sent { .. });
        match request.at {
            At::Line { ticket, .. } => {
                if let Some(door) = self.door_by_key(n) {
                    door.line.leave(ticket);
                }
            }
            At::Pauses => {}
            // What is at a copy waits for its answer, not for a place.
            At::Sent { sent, is_reached } if is_reached || !sent.connects => return,
            At::Sent { .. } => {}
        }
        self.fails(n, id, Why::Expired);
        if frees {
            self.serve_keyed(n);
        }
    }

    pub(super) fn crowded(&mut self, n: usize, id: u64) {
        self.fails(n, id, Why::Crowded);
    }

    fn fails(&mut self, n: usize, id: u64, why: Why) {
        let Some(request) = self.keyed.requests.remove(&id) else { return };
        self.note(n, || format!("request {id} of partition {} {why:?}", request.partition));
        self.judge_failed(n, &request, why);
    }

    pub(super) fn wait_for_answer(&mut self, it: Rc<Sent>) {
        if it.connects {
            let how = How::Refused;
            self.push_keyed(self.now + CONNECT_MAX, Event::Answered { it: it.clone(), how });
        }
        self.push_keyed(self.now + ANSWER_MAX, Event::Answered { it, how: How::Late });
    }

    /// The door hears what became of what it sent.
    pub(super) fn on_keyed_answered(&mut self, it: &Sent, how: How) {
        let (n, id) = (it.door, it.id);
        let Some(request) = self.keyed.requests.get_mut(&id) else { return };
        let At::Sent { is_reached, .. } = request.at else { return };
        if request.no != it.no || !self.is_daemon(n, it.inc) {
            return;
        }
        match how {
            How::Done => self.is_done(it),
            How::Misdirected => self.is_misdirected(it),
            How::Refused if is_reached => {}
            How::Refused => self.tries_again(it, Failure::Refused),
            How::Broke => self.is_broken(it, (Failure::Stale, Why::Broken)),
            How::Late => self.fails(n, id, Why::Late),
        }
        // What it had there is over: whoever waits for that place may go.
        if !self.keyed.reads.contains_key(&id) {
            self.serve_keyed(n);
        }
    }

    fn is_done(&mut self, it: &Sent) {
        let n = it.door;
        self.judge_taken(it);
        self.keyed.answered += 1;
        self.keyed.requests.remove(&it.id);
        if self.rng.chance(10) {
            // Its client is slow, and the copy has to wait for it.
            self.keyed.reads.insert(it.id, *it);
            self.after(1_000, 3_000_000, Outer::Keyed(Event::Read { it: *it }));
        }
        let (mutation, mut routed) = (self.options.mutation, it.routed);
        if mutation == Some(Mutation::OldAnswerOpens) {
            routed.at = Timestamp(u64::MAX);
        }
        let sleeps = mutation == Some(Mutation::GateStays);
        let Some(door) = self.door_by_key(n).filter(|_| !sleeps) else { return };
        if door.owners.taken(routed) && mutation != Some(Mutation::OpensUnsaid) {
            self.serve_keyed(n);
        }
    }

    pub(super) fn on_read(&mut self, it: &Sent) {
        if self.keyed.reads.remove(&it.id).is_some() {
            self.serve_keyed(it.door);
        }
    }

    fn is_misdirected(&mut self, it: &Sent) {
        let (n, now) = (it.door, self.nodes[it.door].clock.at(self.now));
        self.keyed.turned_away += 1;
        self.note(n, || format!("request {} is turned away by {}", it.id, name(it.to)));
        self.judge_turned_away(it);
        let is_deaf = self.options.mutation == Some(Mutation::DeafWhileAway);
        let Some(door) = self.door_by_key(n) else { return };
        let hears = !is_deaf || door.owners.owner(it.routed.partition).is_some();
        let closes = hears && door.owners.turned_away(it.routed, now);
        if closes {
            self.tell_line(n);
        }
        if self.keyed.requests.get(&it.id).is_some_and(|it| it.long) {
            return self.fails(n, it.id, Why::TurnedAway);
        }
        self.tries_again(it, Failure::Misdirected);
    }

    /// It is known that it waits for nobody.
    pub(super) fn on_cut(&mut self, it: &Sent) {
        self.judge_cut(it);
        let Some(request) = self.keyed.requests.get_mut(&it.id) else { return };
        let At::Sent { is_reached, .. } = request.at else { return };
        if it.connects && !is_reached {
            // Nothing was sent.
            request.at = At::Pauses;
            self.serve_keyed(it.door);
            self.waits_still(it.door, it.id);
            return self.ask_keyed(it.door, it.id);
        }
        self.is_broken(it, (Failure::Gone, Why::Lost));
    }

    fn is_broken(&mut self, it: &Sent, (how, why): (Failure, Why)) {
        let (n, id) = (it.door, it.id);
        let hold = self.nodes[n].clock.at(self.now).plus(self.keyed.limits.hold_max);
        let now = self.now;
        let Some(request) = self.keyed.requests.get_mut(&id) else { return };
        if !request.repeatable {
            return self.fails(n, id, why);
        }
        // It had found somebody: what it waits from here on is another wait.
        (request.waits_since, request.hold) = (now, hold);
        self.plan_end_of_wait(n, id);
        self.tries_again(it, how);
    }

    fn tries_again(&mut self, it: &Sent, how: Failure) {
        let (n, id) = (it.door, it.id);
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let budget = &mut daemon.keyed.budget;
        let Some(request) = self.keyed.requests.get_mut(&id) else { return };
        request.at = At::Pauses;
        let mut unpaid = false;
        let pay = || {
            unpaid = !budget.retry(now);
            !unpaid
        };
        let next = request.attempts.failed(it.to, how, pay);
        request.unpaid = unpaid;
        match next {
            Next::AtOnce => {
                // Its own place is free before it asks for another.
                self.serve_keyed(n);
                self.ask_keyed(n, id);
            }
            Next::Paced => self.pause_request(n, id),
            Next::Over => self.fails(n, id, Why::Broken),
        }
    }

    /// Its owner failed it, and there is nobody else.
    pub(super) fn another_round(&mut self, n: usize, id: u64) {
        let Some(request) = self.keyed.requests.get_mut(&id) else { return };
        request.at = At::Pauses;
        match request.attempts.next_round() {
            Next::AtOnce => self.ask_keyed(n, id),
            Next::Paced => self.pause_request(n, id),
            Next::Over => self.fails(n, id, Why::Broken),
        }
    }

    fn pause_request(&mut self, n: usize, id: u64) {
        let inc = self.nodes[n].daemons;
        let pace = PACE.as_micros() as Micros;
        self.push_keyed(self.now + pace, Event::Asks { n, inc, id });
        self.waits_still(n, id);
    }

    /// What it had is over, and so may its time be.
    pub(super) fn waits_still(&mut self, n: usize, id: u64) {
        let (now, inc) = (self.nodes[n].clock.at(self.now), self.nodes[n].daemons);
        if self.keyed.requests.get(&id).is_some_and(|it| it.hold <= now) {
            self.push_keyed(self.now, Event::Expires { n, inc, id });
        }
    }

    pub(super) fn on_pause_over(&mut self, n: usize, inc: u32, id: u64) {
        let pauses = |it: &Request| matches!(it.at, At::Pauses);
        if self.is_daemon(n, inc) && self.keyed.requests.get(&id).is_some_and(pauses) {
            self.ask_keyed(n, id);
        }
    }

    /// A daemon is gone, and its door with all who waited there; what copies do goes on.
    pub(crate) fn drop_keyed(&mut self, n: usize) {
        self.keyed.requests.retain(|_, request| request.door != n);
        self.keyed.reads.retain(|_, it| it.door != n);
    }
}
