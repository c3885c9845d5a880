//! Decides when a commit is acknowledged: each walsender judges by its own copy of the rule (H9).

use super::server::{Mode, Waiter};
use super::wal::Kind;
use crate::event::Event;
use crate::world::World;
use std::collections::BTreeSet;
use tandem_core::ids::NodeId;
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

impl World {
    /// The log is on disk up to here.
    pub fn on_flushed(&mut self, n: usize, pg: u32, upto: usize) {
        let Some(server) = self.nodes[n].server.as_ref().filter(|s| s.number == pg) else { return };
        let (mode, must_wait) = (server.mode, server.must_wait);
        let held =
            server.file_rule.as_ref() == Some(&CommitRule::of_nobody(self.nodes[n].id.clone()));
        let Some(data) = self.nodes[n].disk.data.as_mut() else { return };
        let (from, upto) = (data.flushed, upto.min(data.wal.len()));
        if upto <= from {
            return;
        }
        data.flushed = upto;
        let fresh: Vec<Waiter> = (from..upto)
            .map(|index| Waiter { record: data.wal[index], position: index + 1 })
            .filter(|waiter| match waiter.record.kind {
                Kind::Write => true,
                // Before the barrier the row of a term waits for nobody.
                Kind::Term(_) => !held,
                Kind::EndOfRecovery | Kind::Other => false,
            })
            .collect();
        let term = data.term(upto);
        if let Some(server) = self.server(n, pg).filter(|_| mode == Mode::Primary && held) {
            server.term_seen = server.term_seen.max(term);
        }
        if mode == Mode::Primary {
            if must_wait {
                if let Some(server) = self.server(n, pg) {
                    server.waiters.extend(fresh);
                }
            } else {
                for waiter in fresh {
                    self.acknowledge(n, waiter);
                }
            }
            self.feed(n);
        } else {
            self.confirm(n);
        }
    }

    /// A standby's walsender heard how far it is, and releases what its own rule allows.
    pub fn on_confirm(&mut self, n: usize, pg: u32, from: usize, confirm: (u64, usize)) {
        let (conn, flushed) = confirm;
        let end = self.nodes[n].disk.data.as_ref().map_or(0, |data| data.flushed);
        let Some(server) = self.server(n, pg) else { return };
        let file_rule = server.file_rule.clone();
        let Some(sender) = server.senders.get_mut(&from).filter(|sender| sender.conn == conn)
        else {
            return;
        };
        if sender.reload {
            // Reloads that were signalled are handled before the next reply is.
            sender.rule = file_rule;
            sender.reload = false;
            self.rules_changed = true;
        }
        let caught_up = flushed >= end;
        let Some(server) = self.server(n, pg) else { return };
        let Some(sender) = server.senders.get_mut(&from) else { return };
        sender.flushed = sender.flushed.max(flushed);
        if caught_up && !sender.streaming {
            sender.streaming = true;
            self.rules_changed = true;
        }
        if self.nodes[n].server.as_ref().is_some_and(|server| server.mode == Mode::Primary) {
            self.release(n, from);
        }
    }

    fn release(&mut self, n: usize, by: usize) {
        let Some(server) = self.nodes[n].server.as_ref() else { return };
        let Some(rule) = server.senders.get(&by).and_then(|sender| sender.rule.as_ref()) else {
            return;
        };
        if rule.acks == 0 || !rule.standbys.contains(&self.nodes[by].id) {
            return;
        }
        let mut confirmed: Vec<usize> = self.listed(n).map(|(_, flushed)| flushed).collect();
        confirmed.sort_unstable_by(|a, b| b.cmp(a));
        let Some(upto) = confirmed.get(rule.acks - 1).copied() else { return };
        loop {
            let Some(server) = self.nodes[n].server.as_mut() else { return };
            match server.waiters.front() {
                Some(waiter) if waiter.position <= upto => {}
                Some(_) | None => return,
            }
            if let Some(waiter) = server.waiters.pop_front() {
                self.acknowledge(n, waiter);
            }
        }
    }

    /// Standbys whose own walsender takes them for synchronous, and what they confirmed.
    pub fn listed(&self, n: usize) -> impl Iterator<Item = (usize, usize)> {
        let senders = self.nodes[n].server.iter().flat_map(|server| server.senders.iter());
        senders.filter_map(|(peer, sender)| {
            let rule = sender.rule.as_ref()?;
            (rule.acks > 0 && rule.standbys.contains(&self.nodes[*peer].id))
                .then_some((*peer, sender.flushed))
        })
    }

    fn acknowledge(&mut self, n: usize, waiter: Waiter) {
        if let (Kind::Term(term), Some(server)) =
            (waiter.record.kind, self.nodes[n].server.as_mut())
        {
            server.term_seen = server.term_seen.max(term);
            self.record.barriers.insert(term, n);
        }
        self.check_acknowledged(n, waiter);
    }

    /// The new names are in the file, and every process will hear of it.
    pub fn write_rule(&mut self, n: usize, rule: Option<CommitRule>) {
        self.rules_changed = true;
        let Some(server) = self.nodes[n].server.as_mut() else { return };
        server.file_rule = rule;
        let pg = server.number;
        let conns: Vec<u64> = server
            .senders
            .values_mut()
            .map(|sender| {
                sender.reload = false;
                sender.conn
            })
            .collect();
        for conn in conns {
            self.after(100, 8_000, Event::Reload { n, pg, conn });
        }
    }

    /// A walsender was signalled; it handles that now, or with the next reply.
    pub fn on_reload(&mut self, n: usize, pg: u32, conn: u64) {
        let late = self.rng.chance(30);
        let Some(server) = self.server(n, pg) else { return };
        let rule = server.file_rule.clone();
        let Some(sender) = server.senders.values_mut().find(|sender| sender.conn == conn) else {
            return;
        };
        sender.reload = true;
        if !late {
            sender.rule = rule;
            sender.reload = false;
        }
        self.rules_changed = true;
    }

    /// The checkpointer handled the reload: from now on commits wait, or no longer do.
    pub fn checkpointer_reloads(&mut self, n: usize) {
        self.rules_changed = true;
        let Some(server) = self.nodes[n].server.as_mut() else { return };
        server.must_wait = server.file_rule.as_ref().is_some_and(|rule| rule.acks > 0);
        for sender in server.senders.values_mut() {
            sender.reload = true;
        }
        if server.must_wait || server.mode != Mode::Primary {
            return;
        }
        for waiter in std::mem::take(&mut server.waiters) {
            self.acknowledge(n, waiter);
        }
    }

    /// What keeps the rule from being proven; the adapter's own test.
    pub fn rule_is_proven(&self, n: usize, rule: &CommitRule, barrier: usize) -> bool {
        let Some(server) = self.nodes[n].server.as_ref() else { return false };
        let mut confirmed: BTreeSet<NodeId> = BTreeSet::new();
        for (peer, sender) in &server.senders {
            let id = &self.nodes[*peer].id;
            let lists = |rule: &CommitRule| rule.acks > 0 && rule.standbys.contains(id);
            let listed = sender.rule.as_ref().is_some_and(lists);
            if !lists(rule) {
                if listed {
                    return false;
                }
                continue;
            }
            if !sender.streaming {
                continue;
            }
            if !listed || sender.flushed < barrier {
                return false;
            }
            confirmed.insert(id.clone());
        }
        rule.acknowledges(&confirmed)
    }
}
