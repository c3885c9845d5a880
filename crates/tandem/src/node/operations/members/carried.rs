//! Talks to the operator about a configuration that was agreed: how far it is in force.
//! In: the version, the two configurations, what machines lack. Out: `Outcome`, with what was
//! changed: who overwrites what somebody else applied sees it.
//! Keeps: H41 a configuration counts as applied when the servers have loaded it, and who waits for
//! what is said; H47 a change that ends automatic failover says so.
//! Not here: having it agreed (`apply.rs`), carrying it out on each node (`node/live.rs`).
//! Tested by: `tests/members`.

use super::super::NodeOperations;
use super::super::between::PeerVerb;
use crate::api::operations::Outcome;
use crate::config::{self, Config};
use std::time::Duration;
use tandem_core::ids::{ConfigVersion, NodeId};

/// For every node that is heard to have carried it out.
pub(super) const CARRIED_OUT: Duration = Duration::from_secs(10);
/// For a node to say what it waits for.
const TOLD: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What the new file is warned of that the old one was not: what is weaker from now on (H47).
fn new_warnings(old: &Config, new: &Config) -> Vec<String> {
    let was = |it: &config::Problem| {
        old.warnings.iter().any(|old| (old.code, &old.what) == (it.code, &it.what))
    };
    let fresh = new.warnings.iter().filter(|it| !was(it));
    fresh.map(|it| format!("{}: {}: {}; {}", it.code, it.what, it.because, it.try_)).collect()
}

impl NodeOperations {
    /// Waits until every node that is heard has carried a version out, and says what waits.
    pub(super) async fn carried_out(
        &self,
        version: ConfigVersion,
        (old, new): (&Config, &Config),
        lacks: Vec<String>,
    ) -> Outcome {
        let behind = || -> Vec<NodeId> {
            let seen = self.seen();
            let nodes = seen.agreed.spec.nodes.keys();
            let behind = |node: &&NodeId| {
                seen.fresh(node).is_none_or(|facts| facts.config_version < version)
            };
            nodes.filter(behind).cloned().collect()
        };
        let done = async {
            while !behind().is_empty() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let is_done = tokio::time::timeout(CARRIED_OUT, done).await.is_ok();
        let behind = if is_done { Vec::new() } else { behind() };
        let waits = self.waits(&behind).await;
        let outcome = if behind.is_empty() {
            Outcome::done(format!("configuration {version} is in force on every node"))
        } else {
            let nodes: Vec<&str> = behind.iter().map(NodeId::as_str).collect();
            let nodes = nodes.join(", ");
            let message = format!("configuration {version} is agreed; parts of it wait on {nodes}");
            Outcome::accepted(message)
        };
        let brings = config::needs_restart(old, new);
        let brings: Vec<&str> = brings.iter().map(|it| it.what.as_str()).collect();
        let changes = config::differences(old, new);
        let waiting: Vec<&str> = behind.iter().map(NodeId::as_str).collect();
        outcome
            .field("config_version", version.0)
            .field("changes", changes)
            .field("waiting", waiting)
            .field("waits", waits)
            .field("brings", brings)
            .field("warnings", [new_warnings(old, new), lacks].concat())
    }

    /// What each node that is behind, and answers, says it waits for.
    async fn waits(&self, behind: &[NodeId]) -> Vec<String> {
        if behind.is_empty() {
            return Vec::new();
        }
        let own = self.ground().applied.borrow().waits.clone();
        let others = self.ask_peers::<Vec<String>>(&PeerVerb::Waits, TOLD).await;
        let others = others.into_iter().filter_map(|it| Some((it.node, it.answer.ok()?)));
        let all = std::iter::once((self.ground().me.clone(), own)).chain(others);
        let tell = |(node, waits): (NodeId, Vec<String>)| {
            waits.into_iter().map(move |wait| format!("{node}: {wait}")).collect::<Vec<_>>()
        };
        all.filter(|(node, _)| behind.contains(node)).flat_map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_that_goes_takes_automatic_failover_with_it() {
        let with = "cluster = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1:7400\"\n\
                    [nodes.b]\naddress = \"10.0.0.2:7400\"\n\
                    [nodes.w]\naddress = \"10.0.0.3:7400\"\nrole = \"witness\"\n";
        let (without, _) = with.split_once("[nodes.w]").unwrap();
        let config = |text| Config::parse(text, "t.toml").unwrap();
        let told = new_warnings(&config(with), &config(without));
        assert!(told.len() == 1 && told[0].starts_with("TDM0231: no automatic"), "{told:?}");
        assert_eq!(new_warnings(&config(without), &config(without)), Vec::<String>::new());
    }
}
