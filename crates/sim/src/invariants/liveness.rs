//! Checks that after all faults it serves again, in full: nobody is stuck, nobody waits for a
//! human.

use crate::node::Node;
use crate::world::{World, index};
use tandem_core::cluster::state::Phase;
use tandem_core::facts::{Data, Process, Stream};
use tandem_core::ids::NodeId;
use tandem_core::spec::Durability;

/// Commits that must be acknowledged after healing.
const COMMITS: usize = 3;

impl World {
    /// What is not as it should be; none if all is well.
    pub fn what_is_missing(&self) -> Option<String> {
        let state = self.raft.last().services.get(&self.service)?;
        let Some(appointment) = &state.appointment else { return Some("no primary".into()) };
        if appointment.phase != Phase::Active || appointment.rules.len() != 1 {
            return Some(format!("the appointment is {appointment:?}"));
        }
        if state.switchover.is_some() || state.forced.is_some() {
            return Some("an operator's demand is still open".into());
        }
        let priority = |node: &NodeId| self.nodes[index(node)].priority;
        let better = |node: &Node| !node.witness && node.priority > 0;
        if priority(&appointment.primary) == 0 && self.nodes.iter().any(better) {
            return Some(format!("{} has priority 0, and is primary", appointment.primary));
        }
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.witness) {
            let Some(daemon) = &node.daemon else { return Some(format!("{} is down", node.id)) };
            let own = &daemon.own;
            let is_well = own.data == Data::Present
                && if appointment.primary == node.id {
                    own.process == Process::Primary && own.serving == Some(appointment.term)
                } else {
                    own.process == Process::Standby && matches!(own.stream, Stream::Connected(_))
                };
            if !is_well {
                return Some(format!(
                    "{} is {:?}, {:?}, promised {}, stalled {:?}, {} failures, in term {}",
                    node.id,
                    own.process,
                    own.data,
                    own.promised,
                    own.stalled,
                    own.rejoin_failures,
                    appointment.term
                ));
            }
            let rule = &appointment.rules[0];
            let confirms = rule.standbys.contains(&node.id) || appointment.primary == node.id;
            let is_async = matches!(self.spec_now().durability, Durability::Async { .. });
            if !confirms && !is_async {
                return Some(format!("{} is not in {rule}", node.id));
            }
            if let Some(missing) = self.missing_commits(n) {
                return Some(missing);
            }
        }
        (self.record.since_healing < COMMITS).then(|| "no new commit is acknowledged".into())
    }

    fn missing_commits(&self, n: usize) -> Option<String> {
        let data = self.nodes[n].disk.data.as_ref()?;
        let end = data.flushed;
        let commits = &self.record.acknowledged;
        let lost = commits.iter().find(|c| c.position <= end && !data.holds(c.id, c.position))?;
        Some(format!("{} does not hold the acknowledged commit {}", self.nodes[n].id, lost.id))
    }
}
