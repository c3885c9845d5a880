//! Talks about the commands of this node: what they lack here, before a start misses it.
//! In: `Seen`, this machine. Out: `Finding`s.
//! Not here: how they do in the cluster (`doctor.rs`).
//! Tested by: `service/command/tests/needs.rs`, `tests/singleton`.

use super::super::NodeOperations;
use super::super::seen::Seen;
use crate::api::explain::{Finding, Severity};
use crate::node::services::commands::command_config;
use crate::service::command::{CommandConfig, Lack};
use tandem_core::facts::Process;
use tandem_core::spec::{NodeRole, Seat};

impl NodeOperations {
    /// Every command that this node may have to run.
    pub(super) async fn commands_here(&self, seen: &Seen) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (config, runs_here) in self.of_this_node(seen) {
            let subject = format!("{} on {}", config.service, config.me);
            let looked = tokio::task::spawn_blocking(move || config.lacks(runs_here)).await;
            let lacks = looked.unwrap_or_default();
            if lacks.is_empty() {
                let what = "what it needs on this machine is there";
                findings.push(Finding::good(subject.clone(), what));
            }
            findings.extend(lacks.into_iter().map(|Lack { what, because, try_ }| {
                Finding::new(Severity::Bad, subject.clone(), what).advice(because, try_)
            }));
        }
        findings
    }

    fn of_this_node(&self, seen: &Seen) -> Vec<(CommandConfig, bool)> {
        let ground = self.ground();
        let Some(node) = seen.config.nodes.get(&ground.me) else { return Vec::new() };
        if node.role == NodeRole::Witness {
            return Vec::new();
        }
        let place = (&ground.me, ground.dir.as_path());
        let commands = seen.config.commands.iter();
        commands
            .map(|(service, command)| {
                let own = seen.service(service).and_then(|it| it.instance(&ground.me));
                let runs_here = own.is_some_and(|own| own.process != Process::Stopped);
                let seat = command.partitions.map(|_| Seat::name(service, &ground.me));
                let id = seat.as_ref().unwrap_or(service);
                (command_config(place, node, (id, command)), runs_here)
            })
            .collect()
    }
}
