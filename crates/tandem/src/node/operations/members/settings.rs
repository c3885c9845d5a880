//! Talks to the nodes with data about PostgreSQL settings that are to be agreed.
//! In: the running configuration and the new one. Out: its problems, as PostgreSQL tells them.
//! Every node that answers is asked: versions may differ, and a witness may have no PostgreSQL. One
//! that does not answer is not waited for long; what it cannot load shows afterwards.
//! Not here: asking the programs of one machine (`node/before/trial.rs`).
//! Tested by: `tests/members`.

use super::super::NodeOperations;
use super::super::between::PeerVerb;
use crate::config::{self, Config, NotTaken};
use crate::node::before::trial::{self, Trial};
use std::time::Duration;
use tandem_core::spec::NodeRole;

/// For a node to ask its PostgreSQL.
const JUDGED: Duration = Duration::from_secs(6);

impl NodeOperations {
    /// What PostgreSQL does not take of what is new.
    pub(super) async fn not_taken(&self, old: &Config, new: &Config) -> Vec<config::Problem> {
        let trials = trial::trials(new, Some(old));
        if trials.is_empty() {
            return Vec::new();
        }
        let verb = PeerVerb::TrySettings(trials.clone());
        let (mut refused, others) =
            tokio::join!(self.judge_here(&trials), self.ask_peers::<Vec<NotTaken>>(&verb, JUDGED));
        for found in others.into_iter().filter_map(|it| it.answer.ok()).flatten() {
            let is_known = |it: &NotTaken| (&it.service, &it.name) == (&found.service, &found.name);
            if !refused.iter().any(is_known) {
                refused.push(found);
            }
        }
        config::not_taken(new, &refused)
    }

    /// As the PostgreSQL of this node says; a witness has none that counts.
    pub(in crate::node::operations) async fn judge_here(&self, trials: &[Trial]) -> Vec<NotTaken> {
        let seen = self.seen();
        let own = seen.agreed.spec.nodes.get(&seen.me);
        match own.map(|own| own.role) {
            Some(NodeRole::Data) => trial::judge(trials).await,
            Some(NodeRole::Witness) | None => Vec::new(),
        }
    }
}
