//! Decides what the keeper does: it holds the lease, kills past it, and reports the end.

use crate::event::Event;
use crate::world::World;
use tandem_core::facts::Process;
use tandem_core::time::Timestamp;

impl World {
    /// What runs, as the keeper says when a daemon attaches.
    pub fn on_keeper_status(&mut self, n: usize, inc: u32) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let runs = self.nodes[n].server.is_some();
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if runs && daemon.own.process == Process::Stopped {
            daemon.own.process = Process::Starting;
            self.drive(n);
            self.look(n);
        }
    }

    /// No process of the instance is left.
    pub fn on_exited(&mut self, n: usize, inc: u32, pg: u32) {
        if !self.is_daemon(n, inc) || self.nodes[n].servers != pg {
            return;
        }
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(daemon) = node.daemon.as_mut() else { return };
        daemon.changed_at = now;
        daemon.lease = Timestamp(0);
        daemon.own = daemon.own.clone().after_end();
        node.disk.inspect(&mut daemon.own);
        daemon.observed_at = now;
        self.drive(n);
    }

    /// The keeper lets the instance serve until then.
    pub fn renew(&mut self, n: usize, until: Timestamp) {
        let node = &mut self.nodes[n];
        let Some(server) = &node.server else { return };
        if let Some(lease) = node.lease.as_mut()
            && *lease >= node.clock.at(self.now)
            && until > *lease
        {
            *lease = until;
            let at = node.clock.when(until);
            self.queue.push(at, Event::LeaseEnds { n, pg: server.number });
        }
    }

    /// The keeper limits the instance's lease: before a promotion (H42).
    pub fn limit(&mut self, n: usize, until: Timestamp) -> bool {
        let node = &mut self.nodes[n];
        let now = node.clock.at(self.now);
        let Some(server) = &node.server else { return false };
        if node.lease.is_some_and(|lease| lease < now) || until <= now {
            return false;
        }
        node.lease = Some(until);
        let at = node.clock.when(until);
        self.queue.push(at, Event::LeaseEnds { n, pg: server.number });
        true
    }

    /// The keeper looks at the time.
    pub fn on_lease_ends(&mut self, n: usize, pg: u32) {
        let node = &self.nodes[n];
        let past = node.lease.is_some_and(|lease| lease <= node.clock.at(self.now));
        if past && node.keeper && node.server.as_ref().is_some_and(|s| s.number == pg) {
            self.server_ends(n, false, "its lease passed");
        }
    }
}
