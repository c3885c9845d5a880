//! Decides the names by which PostgreSQL knows a node: application name, slot, and the text of
//! `synchronous_standby_names`.
//! Keeps: H10, every name carries cluster and node, `*` is never written.
//! Tested by: below.

use tandem_core::ids::{ClusterId, NodeId};
use tandem_core::replication::primary_replica::sync_quorum::CommitRule;

/// PostgreSQL cuts names at 63 bytes; the rest is `tandem_`, eight of the cluster and `_`.
const SLUG_MAX: usize = 40;

/// Letters, digits and `_`, unique per node: slots allow nothing else, and an application name that
/// PostgreSQL cuts or changes would confirm nothing.
fn slug(node: &NodeId) -> String {
    let name = node.as_str();
    let plain =
        |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '_' };
    if name.len() <= SLUG_MAX && name.chars().all(|c| plain(c) == c) {
        return name.to_owned();
    }
    let start: String = name.chars().map(plain).take(SLUG_MAX - 9).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{start}_{}", &hash[..8])
}

/// Under which name a standby's WAL receiver connects.
pub(super) fn application(cluster: &ClusterId, node: &NodeId) -> String {
    let cluster: String =
        cluster.as_str().chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("tandem_{}_{}", cluster.to_ascii_lowercase(), slug(node))
}

/// The physical slot that keeps WAL for a node.
pub(super) fn slot(node: &NodeId) -> String {
    format!("tandem_{}", slug(node))
}

/// The text of `synchronous_standby_names`.
pub(super) fn sync_names(cluster: &ClusterId, rule: &CommitRule) -> String {
    if rule.acks == 0 {
        return String::new();
    }
    let mut names: Vec<String> =
        rule.standbys.iter().map(|node| format!("\"{}\"", application(cluster, node))).collect();
    if names.is_empty() {
        // Nobody may confirm, so commits must wait: an empty list would let them pass.
        names.push("\"tandem/nobody\"".to_owned());
    }
    format!("ANY {} ({})", rule.acks, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit() {
        let long = "n".repeat(80);
        let nodes = ["a", "a-b", "a_b", "a.b", &long, "Ä"];
        let mut seen = std::collections::BTreeSet::new();
        for node in nodes {
            let name = application(&"0123456789abcdef".into(), &node.into());
            assert!(name.len() < 64, "{name}");
            assert!(name.starts_with("tandem_01234567_"), "{name}");
            assert!(slot(&node.into()).len() < 64);
            assert!(seen.insert(name), "{node}");
        }
    }

    #[test]
    fn sync_names_follow_the_rule() {
        let cluster = "0123456789abcdef".into();
        let rule = |standbys: &[&str], acks| CommitRule {
            primary: "a".into(),
            standbys: standbys.iter().map(|n| NodeId::from(*n)).collect(),
            acks,
        };
        assert_eq!(sync_names(&cluster, &rule(&["b"], 0)), "");
        let nobody = CommitRule::of_nobody("a".into());
        assert_eq!(sync_names(&cluster, &nobody), "ANY 1 (\"tandem/nobody\")");
        assert_eq!(
            sync_names(&cluster, &rule(&["b", "c-1"], 1)),
            format!("ANY 1 (\"tandem_01234567_b\", \"{}\")", application(&cluster, &"c-1".into()))
        );
    }
}
