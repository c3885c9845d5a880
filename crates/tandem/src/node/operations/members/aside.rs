//! Talks to the cluster about a node that is to go: has it give away what it works on, then has its
//! copies stop.
//! In: the node. Out: that nothing needs it any more, or what still does.
//! States: drained → what it runs alone and owns is elsewhere → its copies leave → no commit rule
//! counts it. Refused on the way: it is no more drained than before.
//! One that nobody hears gives nothing away: what it runs ends with its lease, whether it stays a
//! member or not.
//! Keeps: a command's only copy is not ended where nobody can take over.
//! Not here: what else forbids it (`apply.rs`), what the node does (`driver/instance/leaving.rs`).
//! Tested by: below, `tests/members`.

use super::super::NodeOperations;
use super::super::moves::singleton::move_max;
use super::super::seen::{Seen, ServiceSeen};
use super::super::verbs::why_left;
use crate::consensus::Agreed;
use crate::driver::wire::Wish;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::{ClusterState, ServiceState};
use tandem_core::clustering::active_passive::singleton;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::pairing::Kind;
use tandem_core::spec::{NodeRole, Seat, ServiceSpec};

/// For commits not to wait for a node that is to go.
const SETTLED: Duration = Duration::from_secs(15);
/// For what it has to be elsewhere: with all that follows less than the API gives a verb.
const GIVEN_AWAY_MAX: Duration = Duration::from_secs(30);

/// Whether its copies may work on something.
fn owns_partitions(state: &ClusterState, node: &NodeId) -> bool {
    state.services.iter().any(|(service, it)| {
        let sitting = state.services.get(&Seat::name(service, node)).map(|seat| seat.sitting);
        let owned = |sitting| it.partitions.as_ref().map_or(0, |it| it.owned_by(node, sitting));
        sitting.is_some_and(|sitting| owned(sitting) > 0)
    })
}

/// The commands whose one copy it is to run, in a cluster that has other nodes for them.
pub(super) fn alone<'a>(
    state: &'a ClusterState,
    node: &'a NodeId,
) -> impl Iterator<Item = &'a ServiceId> {
    let is_alone = |it: &ServiceSpec| it.pairing.kind() == Kind::Command && it.seat.is_none();
    let others = state.spec.data_nodes().filter(|other| *other != node).count();
    let its = state.services.iter().filter(move |(service, it)| {
        let holds = it.appointment.as_ref().is_some_and(|it| it.primary == *node);
        others > 0 && holds && state.spec.services.get(*service).is_some_and(is_alone)
    });
    its.map(|(service, _)| service)
}

/// Refuses to take a node from under a command that no other node could run now.
pub(super) fn can_move(service: ServiceSeen<'_>, node: &NodeId, what: &str) -> Result<(), Problem> {
    let ServiceSeen { seen, name, .. } = service;
    let best = singleton::best(&service.view(), Some(node), seen.now);
    // One that is being emptied itself is handed nothing.
    let is_there = best.is_some_and(|to| !seen.agreed.draining.contains(&to));
    if is_there || seen.fresh(node).is_none() {
        return Ok(());
    }
    let because = format!("{node} is the active node of {name}, and no other node can run it now");
    let advice = format!("tandem explain {name} shows what keeps each of them from it");
    Err(Problem::new(codes::PRIMARY_NOT_TOUCHED, what, because, advice))
}

/// Refuses to end the only copies that a node, which is heard, was to give away and still has.
fn gave_all(seen: &Seen, node: &NodeId, what: &str) -> Result<(), Problem> {
    let left: BTreeSet<ServiceId> = alone(&seen.agreed, node).cloned().collect();
    if left.is_empty() || seen.fresh(node).is_none() {
        return Ok(());
    }
    let because = why_left(&seen.agreed, &left);
    let because = format!("{node} is still the active node of {}: {because}", names(&left));
    let advice = format!("empty it first: tandem drain {node}; once it is empty, repeat this");
    Err(Problem::new(codes::PRIMARY_NOT_TOUCHED, what, because, advice))
}

fn names<'a>(services: impl IntoIterator<Item = &'a ServiceId>) -> String {
    let names: Vec<&str> = services.into_iter().map(ServiceId::as_str).collect();
    names.join(", ")
}

impl NodeOperations {
    /// Has the copies of a node stop, and waits until no commit can need them.
    pub(super) async fn step_aside(
        &self,
        node: &NodeId,
        role: NodeRole,
        what: &str,
    ) -> Result<(), Problem> {
        if role == NodeRole::Witness {
            return Ok(());
        }
        let state = self.agreed_state(what)?;
        let drain = |draining| Command::Drain { node: node.clone(), draining };
        let was_drained = state.draining.contains(node);
        if !was_drained {
            self.agree(drain(true), what).await?;
        }
        let left = self.leave(&state, node, what).await;
        if left.is_err() && !was_drained {
            let _ = self.agree(drain(false), what).await;
        }
        left
    }

    /// One that is drained: until nothing needs it.
    async fn leave(&self, state: &ClusterState, node: &NodeId, what: &str) -> Result<(), Problem> {
        self.give_away(state, node, what).await?;
        for service in state.services.keys() {
            // A node that does not answer is counted out by its silence.
            if let Err(problem) = self.wish(service, node, Wish::Leave, what).await {
                tracing::info!(%node, %service, %problem, "does not step aside by itself");
            }
        }
        let counted = |agreed: &Agreed| counted(&agreed.state, node);
        if self.wait(SETTLED, |agreed| counted(agreed).is_empty()).await.is_some() {
            return Ok(());
        }
        let left = counted(&self.ground().consensus.state().borrow());
        let because = format!("commits of {} still count on {node}", names(&left));
        let advice = "tandem explain shows why the commit rule does not change";
        Err(Problem::new(codes::WOULD_LOSE_QUORUM, what, because, advice))
    }

    /// What it owns or runs is given away in order first; who is silent loses it as its lease
    /// passes.
    async fn give_away(
        &self,
        state: &ClusterState,
        node: &NodeId,
        what: &str,
    ) -> Result<(), Problem> {
        let is_left = |agreed: &Agreed| {
            !owns_partitions(&agreed.state, node) && alone(&agreed.state, node).next().is_none()
        };
        let commands = alone(state, node).filter_map(|service| self.command_of(service));
        let longest = commands.map(|command| move_max(&command)).max().unwrap_or_default();
        let _ = self.wait(SETTLED.max(longest).min(GIVEN_AWAY_MAX), is_left).await;
        gave_all(&self.seen(), node, what)
    }
}

/// The services whose commits may wait for a node.
fn counted(state: &ClusterState, node: &NodeId) -> Vec<ServiceId> {
    let counts = |it: &ServiceState| {
        let rules = it.appointment.iter().flat_map(|it| &it.rules);
        rules
            .into_iter()
            .any(|rule| rule.primary == *node || rule.acks > 0 && rule.standbys.contains(node))
    };
    let services = state.services.iter().filter(|(_, it)| counts(it));
    services.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{agree, cluster, instance, later, of, orders};
    use super::*;
    use tandem_core::cluster::command::ServiceCommand;
    use tandem_core::clustering::active_passive::singleton::FAILURES_MAX;

    const ALONE: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
[nodes.b]
address = "10.0.0.2:7400"
[nodes.c]
address = "10.0.0.3:7400"
[services.orders]
kind = "command"
clustering = "active-passive"
replication = "none"
command = ["/srv/orders"]
"#;

    /// It failed on these nodes again and again.
    fn fails_on(nodes: &[&str]) -> Seen {
        let mut seen = cluster(ALONE, "c");
        assert_eq!(alone(&seen.agreed, &"a".into()).collect::<Vec<_>>(), [&orders()]);
        for node in nodes {
            instance(&mut seen, node, |own| own.starts_failed = FAILURES_MAX);
        }
        seen
    }

    fn drain(seen: &mut Seen, node: &str) {
        let mut state = ClusterState::clone(&seen.agreed);
        state.draining.insert(node.into());
        seen.agreed = state.into();
    }

    fn because(said: Result<(), Problem>) -> String {
        let problem = said.unwrap_err();
        assert_eq!(problem.code, codes::PRIMARY_NOT_TOUCHED);
        problem.because
    }

    #[test]
    fn a_command_that_nobody_else_could_run_keeps_its_node() {
        let moves = |seen: &Seen| can_move(of(seen), &"a".into(), "cannot remove a");
        assert!(moves(&fails_on(&["b"])).is_ok(), "c can");
        let mut seen = fails_on(&["b", "c"]);
        let why = "a is the active node of orders, and no other node can run it now";
        assert_eq!(because(moves(&seen)), why);
        let mut emptied = fails_on(&["b"]);
        drain(&mut emptied, "c");
        assert_eq!(because(moves(&emptied)), why);
        later(&mut seen, Duration::from_secs(60), &["a"]);
        assert!(moves(&seen).is_ok(), "it is not heard, and has no lease");
    }

    #[test]
    fn a_command_that_is_still_there_is_not_ended() {
        let gave = |seen: &Seen| gave_all(seen, &"a".into(), "cannot remove a");
        let mut seen = cluster(ALONE, "c");
        assert!(because(gave(&seen)).ends_with("no other node can take over yet"));
        let mut silent = seen.clone();
        later(&mut silent, Duration::from_secs(60), &["a"]);
        assert!(gave(&silent).is_ok());
        let to = ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: u64::MAX };
        agree(&mut seen, to);
        assert!(because(gave(&seen)).ends_with("clients there have up to drain_max to end"));
    }
}
