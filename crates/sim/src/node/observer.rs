//! Reads the own server many times a second, and at the files of one that is stopped.

use crate::event::Event;
use crate::postgres::server::Seen;
use crate::world::{World, lsn};
use std::time::Duration;
use tandem_core::clustering::active_passive::Action;
use tandem_core::facts::{Data, Health, InstanceFacts, Process, Stream};
use tandem_core::ids::{SystemId, TimelineId};
use tandem_core::time::Timestamp;

impl World {
    /// Looks at the server soon.
    pub fn look(&mut self, n: usize) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if !daemon.look_planned {
            daemon.look_planned = true;
            self.after(300, 4_000, Event::Look { n, inc, nudged: true });
        }
    }

    /// Asks the server; the answer takes a moment.
    pub fn on_look(&mut self, n: usize, inc: u32, nudged: bool) {
        if !self.is_daemon(n, inc) {
            return;
        }
        if !nudged {
            self.queue.push(self.now + 100_000, Event::Look { n, inc, nudged: false });
        }
        let seen = self.seen(n);
        let node = &mut self.nodes[n];
        let Some(daemon) = node.daemon.as_mut() else { return };
        daemon.look_planned = daemon.look_planned && !nudged;
        let (began, pg) = (node.clock.at(self.now), node.servers);
        self.after(300, 3_000, Event::Looked { n, inc, pg, began, seen });
    }

    /// The answer; thrown away if anything was changed since the question (INV-8).
    pub fn on_looked(&mut self, n: usize, inc: u32, look: (u32, Timestamp, Option<Box<Seen>>)) {
        let (pg, began, seen) = look;
        let (Some(seen), true) = (seen, self.is_daemon(n, inc)) else { return };
        let servers = self.nodes[n].servers;
        let (health, node_sick_since) = (self.nodes[n].health, self.nodes[n].sick_since);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let settled = !matches!(daemon.own.process, Process::Stopped | Process::Stopping);
        if began < daemon.changed_at || !settled || pg != servers {
            return;
        }
        let promoting =
            daemon.running.as_ref().is_some_and(|r| matches!(r.action, Action::Promote { .. }));
        seen.apply(&mut daemon.own, promoting);
        daemon.own.flushed_at = began;
        let ago = Duration::from_micros(self.now - node_sick_since);
        daemon.own.health = match health {
            Health::Hung(_) => Health::Hung(ago),
            Health::DiskStuck(_) => Health::DiskStuck(ago),
            Health::Good | Health::ConnectionsUsedUp | Health::DiskFull => health,
        };
        daemon.observed_at = began;
        if daemon.adopting && matches!(daemon.own.process, Process::Primary | Process::Standby) {
            daemon.adopting = false;
            daemon.own.found_running(seen.commits);
        }
        self.drive(n);
    }
}

impl Seen {
    /// Takes what was seen into the facts, as the shell's observer does.
    pub fn apply(&self, own: &mut InstanceFacts, promoting: bool) {
        own.process = match (self.in_recovery, promoting) {
            // It is a primary once the action that promotes it says so: before, what it was
            // promoted for is not known here.
            (_, true) => Process::Promoting,
            (true, false) => Process::Standby,
            (false, false) => Process::Primary,
        };
        own.system = Some(SystemId(self.system));
        own.timeline = TimelineId(self.timeline);
        own.forks.clone_from(&self.forks);
        own.flushed = lsn(self.flushed);
        own.replayed = lsn(self.flushed);
        own.data_term = self.term;
        own.checkpointed = self.checkpointed;
        own.stream = self.stream.map_or(Stream::None, Stream::Connected);
        own.replicas.clone_from(&self.replicas);
    }
}

impl super::Disk {
    /// Fills in what the files of a stopped instance say.
    pub fn inspect(&self, own: &mut InstanceFacts) {
        super::steps::adopt_state(own, self.state);
        own.data = match (&self.data, self.sentinel) {
            (_, true) => Data::Mixed,
            (None, false) => Data::Empty,
            (Some(_), false) => Data::Present,
        };
        let Some(data) = self.data.as_ref().filter(|_| own.data == Data::Present) else { return };
        own.system = Some(SystemId(data.system));
        own.timeline = own.timeline.max(TimelineId(data.checkpoint_timeline));
        if own.was_primary {
            // pg_control lags behind a promotion; the history file does not.
            own.timeline = own.timeline.max(TimelineId(data.known.last().copied().unwrap_or(0)));
        }
        own.stopped_cleanly = data.clean;
        let end = lsn(if data.clean { data.flushed } else { data.checkpoint });
        own.flushed = if own.was_primary { end } else { own.flushed.max(end) };
        let timeline = own.timeline;
        own.forks = data.forks().into_iter().take_while(|fork| fork.timeline != timeline).collect();
    }
}
