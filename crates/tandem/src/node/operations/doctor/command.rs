//! Talks about the commands of this node: what they lack here, before a start misses it.
//! In: `Seen`, another configuration, this machine. Out: `Finding`s, warnings.
//! Not here: how they do in the cluster (`doctor.rs`).
//! Tested by: `service/command/tests/needs.rs`, `tests/singleton`.

use super::super::NodeOperations;
use super::super::between::PeerVerb;
use super::super::seen::Seen;
use crate::api::explain::{Finding, Severity};
use crate::config::Config;
use crate::node::services::commands::command_config;
use crate::service::command::{CommandConfig, Lack};
use std::time::Duration;
use tandem_core::facts::Process;
use tandem_core::ids::ServiceId;
use tandem_core::spec::{NodeRole, Seat};

/// For a node to look at its machine; one that does not answer says it by `tandem doctor`.
const LOOKED: Duration = Duration::from_secs(2);

impl NodeOperations {
    /// Every command that this node may have to run.
    pub(super) async fn commands_here(&self, seen: &Seen) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (config, runs_here) in self.of_this_node(seen, &seen.config, |_| true) {
            let (subject, lacks) = look(config, runs_here).await;
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

    /// What the nodes that answer lack for the commands that a configuration has new, or otherwise.
    pub(in crate::node::operations) async fn lacks_everywhere(
        &self,
        old: &Config,
        new: &Config,
    ) -> Vec<String> {
        if old.commands == new.commands {
            return Vec::new();
        }
        let verb = PeerVerb::Lacks(new.text.clone());
        let (mut lacks, others) =
            tokio::join!(self.lacks_here(&new.text), self.ask_peers::<Vec<String>>(&verb, LOOKED));
        lacks.extend(others.into_iter().filter_map(|it| it.answer.ok()).flatten());
        lacks
    }

    /// The same of this node.
    pub(in crate::node::operations) async fn lacks_here(&self, text: &str) -> Vec<String> {
        let Ok(new) = Config::parse(text, "the new configuration") else { return Vec::new() };
        let seen = self.seen();
        let mut told = Vec::new();
        let is_new =
            |service: &ServiceId| seen.config.commands.get(service) != new.commands.get(service);
        for (config, runs_here) in self.of_this_node(&seen, &new, is_new) {
            let (subject, lacks) = look(config, runs_here).await;
            told.extend(lacks.into_iter().map(|Lack { what, because, try_ }| {
                format!("{subject}: {what}: {because}; {try_}")
            }));
        }
        told
    }

    fn of_this_node(
        &self,
        seen: &Seen,
        config: &Config,
        is_asked: impl Fn(&ServiceId) -> bool,
    ) -> Vec<(CommandConfig, bool)> {
        let ground = self.ground();
        let Some(node) = config.nodes.get(&ground.me) else { return Vec::new() };
        if node.role == NodeRole::Witness {
            return Vec::new();
        }
        let place = (&ground.me, ground.dir.as_path());
        let commands = config.commands.iter().filter(|(service, _)| is_asked(service));
        commands
            .map(|(service, command)| {
                let seat = command.partitions.as_ref().map(|_| Seat::name(service, &ground.me));
                let id = seat.as_ref().unwrap_or(service);
                let own = |id| seen.service(id).and_then(|it| it.instance(&ground.me));
                let runs = |id| own(id).is_some_and(|own| own.process != Process::Stopped);
                let runs_here = runs(service) || runs(id);
                (command_config(place, node, (id, command)), runs_here)
            })
            .collect()
    }
}

/// Which, and what it lacks.
async fn look(config: CommandConfig, runs_here: bool) -> (String, Vec<Lack>) {
    let subject = format!("{} on {}", config.service, config.me);
    let looked = tokio::task::spawn_blocking(move || config.lacks(runs_here)).await;
    (subject, looked.unwrap_or_default())
}
