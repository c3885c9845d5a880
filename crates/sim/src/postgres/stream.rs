//! Decides how a standby is fed: what it may connect to, what arrives when, what a cut does.

use super::server::{Mode, Receiver, Sender};
use crate::event::{Event, Micros};
use crate::world::World;

/// `wal_retrieve_retry_interval`.
const RETRY: Micros = 100_000;
/// Half of `wal_receiver_timeout`: the receiver asks whether anybody is there.
const PING: Micros = 1_000_000;
/// `wal_receiver_timeout`.
const RECEIVER_TIMEOUT: Micros = 2_000_000;
/// `wal_sender_timeout`.
const SENDER_TIMEOUT: Micros = 5_000_000;

impl World {
    /// The standby tries to connect.
    pub fn plan_connect(&mut self, n: usize, wait: Micros) {
        let Some(pg) = self.nodes[n].server.as_ref().map(|server| server.number) else { return };
        self.after(wait + 1000, wait + 15_000, Event::Connect { n, pg });
    }

    /// Tries to connect, as `primary_conninfo` says.
    pub fn on_connect(&mut self, n: usize, pg: u32) {
        let Some(server) = self.nodes[n].server.as_ref().filter(|s| s.number == pg) else { return };
        let Some(up) = server.upstream else { return };
        if server.mode != Mode::Standby || server.receiver.is_some() || up == n {
            return;
        }
        if self.try_stream(n, up).is_none() {
            self.plan_connect(n, RETRY);
        }
    }

    fn try_stream(&mut self, n: usize, up: usize) -> Option<()> {
        if !self.net.streams(n, up) || !self.nodes[up].moving() {
            return None;
        }
        let upstream = self.nodes[up].server.as_ref()?;
        // `target_session_attrs=primary`: a node that was demoted feeds nobody (H22).
        if upstream.mode != Mode::Primary {
            return None;
        }
        let (source, own) = (self.nodes[up].disk.data.as_ref()?, self.nodes[n].disk.data.as_ref()?);
        if source.system != own.system || !source.may_feed(own) {
            return None;
        }
        let (server, rule) = (upstream.number, upstream.file_rule.clone());
        self.check_fed(n, up);
        let (conn, position) = (self.next_id(), self.nodes[n].disk.data.as_ref()?.wal.len());
        let caught_up = position >= self.nodes[up].disk.data.as_ref()?.flushed;
        let sender = Sender { conn, rule, reload: false, flushed: 0, streaming: caught_up };
        self.nodes[up].server.as_mut()?.senders.insert(n, sender);
        let (last, timeline) = (self.now, self.nodes[up].disk.data.as_ref()?.timeline());
        self.nodes[n].disk.data.as_mut()?.known.insert(timeline);
        let own = self.nodes[n].server.as_mut()?;
        own.receiver = Some(Receiver { conn, from: up, server, last, busy: false });
        let pg = own.number;
        self.queue.push(self.now + PING, Event::Ping { n, pg, conn });
        self.rules_changed = true;
        self.note(n, || format!("streams from {}", crate::world::name(up)));
        self.look(n);
        self.look(up);
        self.feed(up);
        self.confirm(n);
        Some(())
    }

    /// Whoever is fed by `up` gets what is new.
    pub fn feed(&mut self, up: usize) {
        let Some(server) = self.nodes[up].server.as_ref() else { return };
        let fed: Vec<(usize, u64)> = server.senders.iter().map(|(n, s)| (*n, s.conn)).collect();
        for (n, conn) in fed {
            self.plan_receive(n, conn);
        }
    }

    fn plan_receive(&mut self, n: usize, conn: u64) {
        let Some(server) = self.nodes[n].server.as_mut() else { return };
        let pg = server.number;
        let Some(receiver) = server.receiver.as_mut() else { return };
        if receiver.conn == conn && !receiver.busy {
            receiver.busy = true;
            // A stream loses nothing, but what was lost on the way is sent again, later.
            let again = self.rng.chance(self.net.loss_percent);
            let most = self.net.delay_max.max(3_000) + if again { 400_000 } else { 0 };
            self.after(200, most, Event::Receive { n, pg, conn });
        }
    }

    /// Some of what the upstream has flushed arrives.
    pub fn on_receive(&mut self, n: usize, pg: u32, conn: u64) {
        let now = self.now;
        let Some(receiver) = self.receiver(n, pg, conn) else { return };
        receiver.busy = false;
        let (up, server) = (receiver.from, receiver.server);
        let gone = self.nodes[up].server.as_ref().is_none_or(|s| {
            s.number != server || s.senders.get(&n).is_none_or(|sender| sender.conn != conn)
        });
        // Cut or frozen: nothing arrives until that ends, or somebody gives up.
        if gone || !self.net.streams(n, up) || !self.nodes[up].moving() {
            return;
        }
        let Some(source) = self.nodes[up].disk.data.as_ref() else { return };
        let Some(own) = self.nodes[n].disk.data.as_ref() else { return };
        let (have, end) = (own.wal.len(), source.flushed);
        if have >= end {
            return;
        }
        let upto = have + 1 + self.rng.below((end - have).max(1)).max((end - have) / 2);
        let records = source.wal[have..upto.min(end)].to_vec();
        let Some(own) = self.nodes[n].disk.data.as_mut() else { return };
        own.wal.extend(records);
        let upto = own.wal.len();
        if let Some(receiver) = self.receiver(n, pg, conn) {
            receiver.last = now;
        }
        self.after(100, 2_000, Event::Flushed { n, pg, upto });
        if upto < end {
            self.plan_receive(n, conn);
        }
    }

    fn receiver(&mut self, n: usize, pg: u32, conn: u64) -> Option<&mut Receiver> {
        self.server(n, pg)?.receiver.as_mut().filter(|receiver| receiver.conn == conn)
    }

    /// Tells the upstream how far this standby is.
    pub fn confirm(&mut self, n: usize) {
        let Some(receiver) = self.nodes[n].server.as_ref().and_then(|s| s.receiver) else { return };
        let flushed = self.nodes[n].disk.data.as_ref().map_or(0, |data| data.flushed);
        let up = receiver.from;
        if self.net.streams(n, up) {
            let (pg, conn) = (receiver.server, receiver.conn);
            self.after(200, 2_500, Event::Confirm { n: up, pg, from: n, conn, flushed });
        }
    }

    /// Once a second the receiver looks whether its upstream is there.
    pub fn on_ping(&mut self, n: usize, pg: u32, conn: u64) {
        let now = self.now;
        let Some(receiver) = self.receiver(n, pg, conn) else { return };
        let (up, server, silence) = (receiver.from, receiver.server, now - receiver.last);
        if silence >= RECEIVER_TIMEOUT {
            self.receiver_ends(n, pg, conn);
            return;
        }
        let there = self.net.streams(n, up)
            && self.nodes[up].moving()
            && self.nodes[up].server.as_ref().is_some_and(|s| s.number == server);
        if silence >= PING && there {
            let Some(receiver) = self.receiver(n, pg, conn) else { return };
            receiver.last = now;
        }
        if there {
            self.plan_receive(n, conn);
            self.confirm(n);
        }
        self.queue.push(now + 250_000, Event::Ping { n, pg, conn });
    }

    /// The other end of `n`'s receiver closed.
    pub fn receiver_breaks(&mut self, n: usize, up: usize, conn: u64) {
        let Some(pg) = self.nodes[n].server.as_ref().map(|server| server.number) else { return };
        let told = self.nodes[up].powered && self.net.streams(n, up);
        if told {
            self.after(100, 5_000, Event::ReceiverGone { n, pg, conn });
        }
        // Otherwise its timeout ends it.
    }

    /// The other end of a sender closed.
    pub fn sender_breaks(&mut self, up: usize, server: u32, n: usize, conn: u64) {
        let told = self.nodes[n].powered && self.net.streams(n, up);
        let wait = if told { self.rng.between(100, 5_000) } else { SENDER_TIMEOUT };
        let event = Event::SenderGone { n: up, pg: server, from: n, conn };
        self.queue.push(self.now + wait, event);
    }

    /// The walsender is gone.
    pub fn on_sender_gone(&mut self, n: usize, pg: u32, from: usize, conn: u64) {
        let Some(server) = self.server(n, pg) else { return };
        if server.senders.get(&from).is_some_and(|sender| sender.conn == conn) {
            server.senders.remove(&from);
            self.rules_changed = true;
            self.look(n);
        }
    }

    /// The receiver ends, and the standby tries again.
    pub fn receiver_ends(&mut self, n: usize, pg: u32, conn: u64) {
        let Some(receiver) = self.receiver(n, pg, conn).copied() else { return };
        if let Some(server) = self.server(n, pg) {
            server.receiver = None;
        }
        self.sender_breaks(receiver.from, receiver.server, n, conn);
        self.note(n, || format!("no longer streams from {}", crate::world::name(receiver.from)));
        self.plan_connect(n, 0);
        self.look(n);
    }
}
