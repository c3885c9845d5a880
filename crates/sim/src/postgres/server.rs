//! Decides what a running server does: start in recovery, promote, write, stop, crash.

use super::wal::{Kind, Record};
use crate::event::{Event, Micros};
use crate::faults::Fault;
use crate::world::World;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tandem_core::facts::{Commits, Fork, Replica};
use tandem_core::ids::{NodeId, Term};
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

/// What the processes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Replays what it needs to be consistent; answers nobody.
    Starting,
    /// In recovery.
    Standby,
    /// Was asked to leave recovery.
    Promoting,
    /// Accepts writes.
    Primary,
    /// Shuts down.
    Stopping,
}

/// One running server.
#[derive(Debug)]
pub struct Server {
    /// Which of its node.
    pub number: u32,
    /// What it does.
    pub mode: Mode,
    /// `primary_conninfo`.
    pub upstream: Option<usize>,
    /// The WAL receiver.
    pub receiver: Option<Receiver>,
    /// `synchronous_standby_names` in its file.
    pub file_rule: Option<CommitRule>,
    /// Whether the checkpointer says that commits must wait.
    pub must_wait: bool,
    /// A walsender per standby.
    pub senders: BTreeMap<usize, Sender>,
    /// Commits that wait, by position.
    pub waiters: VecDeque<Waiter>,
    /// The greatest term whose row is visible.
    pub term_seen: Term,
}

/// A WAL receiver.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The connection.
    pub conn: u64,
    /// To whom.
    pub from: usize,
    /// The server it is connected to.
    pub server: u32,
    /// When it last got anything.
    pub last: Micros,
    /// A step is planned.
    pub busy: bool,
}

/// A walsender.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The connection.
    pub conn: u64,
    /// The names that it works by: its own copy, loaded when it handles the reload (H9).
    pub rule: Option<CommitRule>,
    /// A reload was signalled.
    pub reload: bool,
    /// What the standby confirmed.
    pub flushed: usize,
    /// Caught up at least once.
    pub streaming: bool,
}

/// A commit that waits for its confirmation.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The commit.
    pub record: Record,
    /// Its position.
    pub position: usize,
}

/// What a look at the server shows.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `pg_is_in_recovery`.
    pub in_recovery: bool,
    /// Identity.
    pub system: u64,
    /// Timeline.
    pub timeline: u32,
    /// Its ancestors.
    pub forks: Vec<Fork>,
    /// Flushed here.
    pub flushed: usize,
    /// Greatest visible term.
    pub term: Term,
    /// By `synchronous_standby_names`.
    pub commits: Commits,
    /// A checkpoint ended on this timeline.
    pub checkpointed: bool,
    /// How long ago the receiver last got anything, if it is connected.
    pub stream: Option<Duration>,
    /// The standbys.
    pub replicas: BTreeMap<NodeId, Replica>,
}

impl World {
    /// Starts a server in recovery, as every start is (H5).
    pub fn server_start(&mut self, n: usize, upstream: Option<usize>) -> bool {
        let node = &mut self.nodes[n];
        let startable = node.keeper && !node.disk.sentinel && node.server.is_none();
        let Some(data) = node.disk.data.as_mut().filter(|_| startable) else { return false };
        data.clean = false;
        data.in_recovery = true;
        data.wal.truncate(data.flushed);
        node.servers += 1;
        node.lease = None;
        let number = node.servers;
        let nobody = CommitRule::of_nobody(node.id.clone());
        node.server = Some(Server {
            number,
            mode: Mode::Starting,
            upstream,
            receiver: None,
            // Whoever promotes it, its commits wait (H7).
            file_rule: Some(nobody),
            must_wait: true,
            senders: BTreeMap::new(),
            waiters: VecDeque::new(),
            term_seen: Term(0),
        });
        self.after(20_000, 250_000, Event::Ready { n, pg: number });
        self.note(n, || format!("the server starts, upstream {upstream:?}"));
        true
    }

    /// The server, if it is still that one.
    pub fn server(&mut self, n: usize, number: u32) -> Option<&mut Server> {
        self.nodes[n].server.as_mut().filter(|server| server.number == number)
    }

    /// It is consistent and answers.
    pub fn on_ready(&mut self, n: usize, pg: u32) {
        let Some(server) = self.server(n, pg).filter(|server| server.mode == Mode::Starting) else {
            return;
        };
        server.mode = Mode::Standby;
        self.plan_connect(n, 0);
        self.look(n);
    }

    /// Ends the server at once; `clean` is a shutdown that wrote its checkpoint.
    pub fn server_ends(&mut self, n: usize, clean: bool, why: &str) {
        let Some(server) = self.nodes[n].server.take() else { return };
        self.note(n, || format!("the server ends: {why}"));
        let flushed_all = self.rng.chance(50);
        if let Some(data) = self.nodes[n].disk.data.as_mut() {
            if clean || flushed_all {
                data.flushed = data.wal.len();
            } else {
                // Written, not synced: any part may have reached the disk.
                let lost = data.wal.len() - data.flushed;
                data.flushed += if lost == 0 { 0 } else { self.rng.below(lost + 1) };
            }
            data.wal.truncate(data.flushed);
            data.clean = clean;
        }
        self.rules_changed = true;
        // Its connections are reset, if the machine is there to do so.
        for (peer, sender) in &server.senders {
            self.receiver_breaks(*peer, n, sender.conn);
        }
        if let Some(receiver) = server.receiver {
            self.sender_breaks(receiver.from, receiver.server, n, receiver.conn);
        }
        let inc = self.nodes[n].daemons;
        if self.nodes[n].daemon.is_some() {
            let told = Event::KeeperExited { n, inc, pg: server.number, clean };
            self.after(200, 1500, told);
        }
    }

    /// Writes one record on a primary, to be flushed soon.
    pub fn write(&mut self, n: usize, kind: Kind) -> Option<usize> {
        let id = self.next_id();
        let node = &mut self.nodes[n];
        let number = node.server.as_ref()?.number;
        let data = node.disk.data.as_mut()?;
        let timeline = data.timeline();
        data.wal.push(Record { id, timeline, kind });
        let upto = data.wal.len();
        self.after(50, 1500, Event::Flushed { n, pg: number, upto });
        Some(upto)
    }

    /// The server left recovery: a new timeline begins.
    pub fn on_promoted(&mut self, n: usize, pg: u32) {
        let id = self.next_id();
        let node = &mut self.nodes[n];
        let Some(server) = node.server.as_mut() else { return };
        let Some(data) = node.disk.data.as_mut() else { return };
        if server.number != pg || server.mode != Mode::Promoting {
            return;
        }
        data.flushed = data.wal.len();
        server.term_seen = data.term(data.wal.len());
        let timeline = data.next_timeline();
        data.known.insert(timeline);
        data.in_recovery = false;
        data.wal.push(Record { id, timeline, kind: Kind::EndOfRecovery });
        data.flushed = data.wal.len();
        server.mode = Mode::Primary;
        server.upstream = None;
        server.receiver = None;
        // Whoever was fed by the standby must ask for the new timeline.
        let fed: Vec<(usize, u64)> = server.senders.iter().map(|(p, s)| (*p, s.conn)).collect();
        server.senders.clear();
        for (peer, conn) in fed {
            self.receiver_breaks(peer, n, conn);
        }
        self.rules_changed = true;
        self.note(n, || format!("promoted to timeline {timeline}"));
        self.check_promoted(n);
        if let Some(back) = self.next_dies.take_if(|_| !self.healed) {
            // Before the barrier, if it comes early. Sessions that were open before go on (H7).
            self.after(0, 40_000, Event::Fault(Fault::DaemonDies { n, back }));
            self.after(40_000, 600_000, Event::Fault(Fault::PowerOff { n, back }));
        }
        self.look(n);
    }

    /// What a look shows now.
    pub fn seen(&self, n: usize) -> Option<Box<Seen>> {
        let node = &self.nodes[n];
        let server = node.server.as_ref()?;
        let data = node.disk.data.as_ref()?;
        if !matches!(server.mode, Mode::Standby | Mode::Promoting | Mode::Primary) {
            return None;
        }
        let replica = |sender: &Sender| Replica {
            flushed: crate::world::lsn(sender.flushed),
            replayed: crate::world::lsn(sender.flushed),
            streaming: sender.streaming,
        };
        let is_primary = server.mode == Mode::Primary;
        Some(Box::new(Seen {
            in_recovery: !is_primary,
            system: data.system,
            timeline: data.timeline(),
            forks: data.forks(),
            flushed: data.flushed,
            term: if is_primary { server.term_seen } else { data.term(data.flushed) },
            commits: match &server.file_rule {
                Some(rule) if *rule == CommitRule::of_nobody(node.id.clone()) => Commits::Held,
                Some(_) | None => Commits::Acknowledged,
            },
            checkpointed: is_primary && data.checkpoint_timeline == data.timeline(),
            stream: server.receiver.map(|r| Duration::from_micros(self.now - r.last)),
            replicas: server
                .senders
                .iter()
                .map(|(peer, sender)| (self.nodes[*peer].id.clone(), replica(sender)))
                .collect(),
        }))
    }
}
