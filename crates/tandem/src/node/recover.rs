//! Talks to the folder of a node that is not running, after a majority was lost for good: says what
//! would be lost, and makes the node go on alone.
//! In: the folder. Out: `Loss`, and a cluster whose members, configuration and rules need nobody
//! who is gone.
//! Three things name the lost: Raft's members, the agreed nodes, which leases are proven by, and
//! the commit rules. The first two are rewritten here; the third is the planner's, once the node
//! runs.
//! Not here: Raft's part (`consensus::recover`), the words for the operator (`cli`).
//! Tested by: `consensus/tests/recovery.rs`, `tests/members`.

use super::agreed::{self, Kept};
use crate::config::{self, Config, EditError};
use crate::consensus::{self, Recovered, Survivor};
use crate::identity::{self, Identity};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tandem_core::cluster::command;
use tandem_core::cluster::state::ServiceState;
use tandem_core::ids::{ConfigVersion, NodeId, ServiceId};
use tandem_core::replication::primary_replica::sync_quorum;
use tandem_core::spec::Durability;

/// Why a node cannot go on alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Who it is.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Its store.
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
    /// The agreed configuration cannot be changed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Nothing was ever agreed.
    #[error("nothing is agreed in this folder: there is nothing to go on with")]
    NotFounded,
    /// It was removed, or never added.
    #[error("the agreed configuration does not name {node}")]
    NotAMember {
        /// This node.
        node: NodeId,
    },
    /// What would be left is no configuration.
    #[error("{node} alone cannot run the services: {because}")]
    NotAlone {
        /// This node.
        node: NodeId,
        /// Of the first error.
        because: String,
    },
    /// The configuration was agreed, and the node's folder does not have it.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// What going on alone costs.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Who goes on.
    pub node: NodeId,
    /// Raft's part.
    pub recovered: Recovered,
    /// Who is given up.
    pub lost: BTreeSet<NodeId>,
    /// What each service loses, in words.
    pub services: Vec<(ServiceId, String)>,
    /// The version that will be agreed.
    pub version: ConfigVersion,
    config: Config,
}

/// Looks, and changes nothing.
///
/// # Errors
/// The node runs, is no member, or cannot go on alone.
pub fn look(dir: &Path) -> Result<Loss, Error> {
    let identity = Identity::load(dir)?;
    let node = identity.node().clone();
    let Survivor { recovered, state } = consensus::survivor(&store(dir), &node)?;
    if state.cluster.is_none() {
        return Err(Error::NotFounded);
    }
    if !state.spec.nodes.contains_key(&node) {
        return Err(Error::NotAMember { node });
    }
    let lost: BTreeSet<NodeId> =
        state.spec.nodes.keys().filter(|it| **it != node).cloned().collect();
    let is_async = |it: &Durability| matches!(it, Durability::Async { .. });
    let quorum = state.spec.services.iter().filter(|(_, it)| !is_async(&it.durability));
    let quorum = quorum.map(|(service, _)| service.clone()).collect();
    let text = config::without_nodes(&state.config_text, &lost)?;
    let text = config::with_durability(&text, "preferred", &quorum)?;
    let config = Config::parse(&text, "the configuration of one node").map_err(|problems| {
        let first = problems.iter().find(|problem| problem.is_error());
        let because = first.map_or_else(String::new, |it| format!("{}: {}", it.what, it.because));
        Error::NotAlone { node: node.clone(), because }
    })?;
    let services = state.services.iter();
    let services = services.map(|(name, it)| (name.clone(), cost(it, &node))).collect();
    let version = state.config_version.next();
    Ok(Loss { node, recovered, lost, services, version, config })
}

/// Does it. Never on two nodes.
///
/// # Errors
/// As `look`, or the store cannot be written.
pub fn carry_out(dir: &Path, loss: &Loss) -> Result<(), Error> {
    let own = loss.config.nodes.get(&loss.node);
    let Some(address) = own.map(|own| own.address.to_string()) else {
        return Err(Error::NotAMember { node: loss.node.clone() });
    };
    let config = command::Config { text: loss.config.text.clone(), spec: loss.config.spec() };
    consensus::recover(&store(dir), &loss.node, address, Some(config))?;
    let kept = Kept { version: loss.version, text: loss.config.text.clone() };
    agreed::store(dir, &kept).map_err(|source| Error::File { path: agreed::path(dir), source })
}

fn store(dir: &Path) -> PathBuf {
    dir.join("raft.redb")
}

/// What a service's acknowledged commits are worth on this node alone.
fn cost(state: &ServiceState, node: &NodeId) -> String {
    let Some(appointment) = &state.appointment else {
        return "it has no data that was ever served".to_owned();
    };
    let term = appointment.term;
    if appointment.primary == *node {
        return format!("{node} is its primary in term {term}: every acknowledged commit is here");
    }
    if sync_quorum::elects(&appointment.rules, &[node.clone()].into()) {
        return format!(
            "every commit that {} acknowledged in term {term} had to be confirmed by {node}: \
             nothing is lost",
            appointment.primary
        );
    }
    let rules: Vec<String> = appointment.rules.iter().map(ToString::to_string).collect();
    format!(
        "commits that {} acknowledged in term {term} may be lost: {} let some be confirmed without \
         {node}",
        appointment.primary,
        rules.join(" and ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::cluster::state::{Appointment, Phase};
    use tandem_core::ids::Term;
    use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

    fn appointed(primary: &str, standbys: &[&str], acks: usize) -> ServiceState {
        let rule = CommitRule {
            primary: primary.into(),
            standbys: standbys.iter().map(|it| NodeId::from(*it)).collect(),
            acks,
        };
        let appointment = Appointment {
            term: Term(4),
            primary: primary.into(),
            rules: vec![rule],
            phase: Phase::Active,
        };
        ServiceState { appointment: Some(appointment), ..ServiceState::default() }
    }

    #[test]
    fn what_may_be_lost_follows_from_the_commit_rule() {
        let cost = |state: &ServiceState| cost(state, &"c".into());
        assert!(cost(&ServiceState::default()).contains("no data"));
        assert!(
            cost(&appointed("c", &["a", "b"], 1)).contains("every acknowledged commit is here")
        );
        assert!(cost(&appointed("a", &["b", "c"], 2)).contains("nothing is lost"));
        assert!(cost(&appointed("a", &["b", "c"], 1)).contains("may be lost: a+any 1 of (b,c)"));
        assert!(cost(&appointed("a", &[], 0)).contains("may be lost"));
    }
}
