//! Talks to operators about who takes part: tokens, and nodes that come and go by their name.
//! In: a node. Out: `Outcome`, or why not.
//! Adding and removing by name is a change of the agreed configuration's text; how that is agreed
//! and carried out is the same for both (`apply.rs`).
//! Not here: what the new node does with its token (`identity::join`).
//! Tested by: `tests/members`.

mod apply;
mod aside;
mod carried;
mod settings;

use super::{NodeOperations, refusals};
use crate::api::explain::{Finding, Severity};
use crate::api::operations::{Outcome, Refused, Secret};
use crate::config::{self, EditError, NewNode};
use crate::identity;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use tandem_core::cluster::state::ClusterState;
use tandem_core::ids::NodeId;

impl NodeOperations {
    /// Makes a token, where the authority's key is.
    pub(super) async fn mint_token(&self, node: NodeId) -> Result<Outcome, Refused> {
        let what = format!("cannot make a token for {node}");
        // A name that a certificate may carry, and the configuration may not, never becomes a node.
        if let Some((because, try_)) = config::name_flaw(node.as_str()) {
            return Err(Problem::new(codes::CONFIG_BAD_NAME, what, because, try_));
        }
        let ground = self.ground();
        let seen = self.seen();
        let own = seen.config.nodes.get(&ground.me);
        let address = own.map(|own| own.address.to_string()).ok_or_else(|| {
            Problem::new(codes::OPERATION_FAILED, &what, "this node was removed", "ask a member")
        })?;
        let (dir, name) = (ground.dir.clone(), node.clone());
        let minted =
            tokio::task::spawn_blocking(move || identity::mint_token(&dir, &address, &name)).await;
        let failed = |because: String| {
            Problem::new(codes::OPERATION_FAILED, &what, because, "see the node's log")
        };
        let token = match minted.map_err(|error| failed(error.to_string()))? {
            Ok(token) => token,
            Err(error @ identity::Error::NoAuthority { .. }) => {
                let advice = "ask the node where tandem init ran, or copy its ca.key here and \
                              restart the daemon";
                return Err(Problem::new(codes::NOT_SUPPORTED, &what, chain(&error), advice));
            }
            Err(error) => return Err(failed(chain(&error))),
        };
        Ok(Outcome::done(format!("{node} may join once, within an hour"))
            .field("node", node.as_str())
            .field("address", token.address())
            .field("expires_unix_s", token.expires())
            .token(Secret::new(token.to_string())))
    }

    /// Adds a node that joined and waits to be a member.
    pub(super) async fn add_node(&self, new: NewNode) -> Result<Outcome, Refused> {
        let what = format!("cannot add {}", new.node);
        let state = self.agreed_state(&what)?;
        if state.spec.nodes.contains_key(&new.node) {
            let because = "it is a member already";
            return Err(Problem::new(codes::ALREADY_SO, what, because, "tandem status"));
        }
        let text = config::with_node(&state.config_text, &new);
        let text = text.map_err(|error| unreadable(&what, &error))?;
        self.apply_config(&text, Some(state.config_version)).await
    }

    /// Removes a node: its copy, its vote, its place in the configuration.
    pub(super) async fn remove_node(&self, node: NodeId) -> Result<Outcome, Refused> {
        let what = format!("cannot remove {node}");
        let state = self.agreed_state(&what)?;
        if !state.spec.nodes.contains_key(&node) {
            if self.ground().consensus.leadership().borrow().addresses.contains_key(&node) {
                // An earlier attempt ended between its two halves.
                self.end_membership(&node, &what).await?;
                return Ok(Outcome::done(format!("{node} is no member any more")));
            }
            return Err(refusals::no_such_node(&node));
        }
        let text = config::without_nodes(&state.config_text, &[node].into());
        let text = text.map_err(|error| unreadable(&what, &error))?;
        self.apply_config(&text, Some(state.config_version)).await
    }

    /// What is agreed, once anything is.
    pub(in crate::node::operations) fn agreed_state(
        &self,
        what: &str,
    ) -> Result<ClusterState, Problem> {
        let state = self.ground().consensus.state().borrow().state.clone();
        if state.cluster.is_some() {
            return Ok((*state).clone());
        }
        let because = "the cluster is not founded: a majority of its nodes must run once";
        Err(Problem::new(codes::NO_MAJORITY, what, because, "start the other nodes"))
    }
}

fn unreadable(what: &str, error: &EditError) -> Problem {
    let advice = "tandem config show --running shows it, tandem config apply replaces it";
    Problem::new(codes::OPERATION_FAILED, what, error.to_string(), advice)
}

/// What of the agreed configuration is not in force on this node.
pub(super) fn waiting(me: &NodeId, waits: &[String], removed: bool) -> Vec<Finding> {
    let subject = format!("configuration on {me}");
    if removed {
        let what = format!("{me} was removed from the cluster");
        return vec![Finding::new(Severity::Bad, subject, what).advice(
            "the agreed configuration does not name it",
            "disable its unit, or empty its folder and let it join again",
        )];
    }
    let finding = |what: &String| {
        Finding::new(Severity::Warning, subject.clone(), what.clone()).advice(
            "a part of the agreed configuration is not in force here",
            "restart the daemon when it suits; its instances keep running",
        )
    };
    waits.iter().map(finding).collect()
}
