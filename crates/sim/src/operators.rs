//! Decides what operators ask for, as the node that takes their request would pass it on.

use crate::faults::Fault;
use crate::world::World;
use tandem_core::cluster::command::{Command, Config, ServiceCommand};
use tandem_core::cluster::state::Forced;
use tandem_core::spec::Durability;

impl World {
    /// An operator asks the leader for something.
    pub fn operate(&mut self, fault: Fault) {
        let Some(leader) = self.raft.leader.filter(|leader| self.nodes[*leader].awake()) else {
            return;
        };
        let named = match fault {
            Fault::Switchover { to } => Some(to),
            Fault::Failover { to, .. } => to,
            _ => None,
        };
        // As the node that takes the request does.
        if named.is_some_and(|to| self.nodes[to].witness) {
            return;
        }
        let agreed = self.agreed(leader);
        let Some(state) = agreed.services.get(&self.service) else { return };
        let now_ms = self.nodes[leader].clock.unix_ms(self.now);
        let id = |n: usize| self.nodes[n].id.clone();
        let command = match fault {
            Fault::Switchover { to } => {
                ServiceCommand::RequestSwitchover { to: id(to), deadline_unix_ms: now_ms + 15_000 }
            }
            Fault::Failover { to, accept_loss } => {
                self.record.accepted |= accept_loss;
                let deadline_unix_ms = now_ms + 15_000;
                let forced = Forced { to: to.map(id), accept_loss, deadline_unix_ms };
                ServiceCommand::RequestFailover { forced }
            }
            Fault::Durability { durability } => {
                self.configure(leader, durability);
                return;
            }
            Fault::Pause { paused } => ServiceCommand::Pause { paused },
            Fault::Drain { n, draining } => {
                self.propose(leader, Command::Drain { node: id(n), draining });
                return;
            }
            _ => return,
        };
        let service = self.service.clone();
        self.propose(leader, Command::Service { service, expected: state.revision, command });
    }

    /// A new configuration, which every node takes over when it has applied it.
    fn configure(&mut self, leader: usize, durability: Durability) {
        let agreed = self.agreed(leader);
        let mut spec = agreed.spec.clone();
        for service in spec.services.values_mut() {
            service.durability = durability;
        }
        let config = Box::new(Config { text: agreed.config_text.clone(), spec });
        self.propose(leader, Command::Configure { expected: agreed.config_version, config });
    }

    /// Operators end what they began.
    pub fn resume(&mut self) {
        let agreed = self.raft.last().clone();
        if agreed.services.get(&self.service).is_some_and(|state| state.paused) {
            self.operate(Fault::Pause { paused: false });
        }
        for n in 0..self.nodes.len() {
            if agreed.draining.contains(&self.nodes[n].id) {
                self.operate(Fault::Drain { n, draining: false });
            }
        }
    }
}
