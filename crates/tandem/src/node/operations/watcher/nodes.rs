//! Tells what happens to nodes and the ways between them.
//! In: two looks. Out: `Draft`s.
//! Keeps: H33 a link that is cut is told apart from a node that is gone: somebody hears both ends.

use super::super::seen::Seen;
use super::super::status::node_state;
use crate::api::status::NodeState;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use std::collections::BTreeSet;
use tandem_core::facts::Link;
use tandem_core::ids::NodeId;

/// Nodes, leadership and members.
pub(super) fn changes(before: &Seen, after: &Seen) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for node in after.config.nodes.keys().filter(|node| **node != after.me) {
        let (was, is) = (node_state(before, node), node_state(after, node));
        // Never heard since this node started is not news.
        if !before.facts.contains_key(node) && is == NodeState::Silent {
            continue;
        }
        let was_heard = !matches!(was, NodeState::Silent | NodeState::Down);
        let me = &after.me;
        let draft = |kind, message: String| Draft::new(kind, message).field("node", node.as_str());
        match is {
            NodeState::Down if was != NodeState::Down => drafts.push(draft(
                EventKind::NodeDied,
                format!("{node} refuses connections: its daemon is gone"),
            )),
            NodeState::Silent if was_heard => {
                let age = after.facts.get(node).map_or(0, |facts| {
                    u64::try_from(facts.age(after.now).as_millis()).unwrap_or(u64::MAX)
                });
                let message = format!("{me} does not hear {node} for {age} ms");
                drafts.push(draft(EventKind::NodeSilent, message).field("silent_ms", age));
            }
            NodeState::Up | NodeState::Draining | NodeState::Joining
                if !was_heard && before.facts.contains_key(node) =>
            {
                drafts.push(draft(EventKind::NodeReturned, format!("{node} is heard again")));
            }
            _ => {}
        }
    }
    drafts.extend(leadership(before, after));
    drafts.extend(members(before, after));
    drafts
}

fn leadership(before: &Seen, after: &Seen) -> Option<Draft> {
    let (was, is) = (&before.leadership.leader, &after.leadership.leader);
    match is {
        _ if was == is => None,
        Some(leader) => Some(
            Draft::new(EventKind::LeaderElected, format!("{leader} leads the consensus"))
                .field("leader", leader.as_str())
                .field("raft_term", after.leadership.raft_term),
        ),
        None => Some(Draft::new(EventKind::LeaderLost, "nobody leads, as seen here")),
    }
}

fn members(before: &Seen, after: &Seen) -> Vec<Draft> {
    let (was, is) = (&before.leadership.voters, &after.leadership.voters);
    if was.is_empty() || is.is_empty() {
        return Vec::new();
    }
    let told = |kind, node: &NodeId, what: &str| {
        Draft::new(kind, format!("{node} {what}")).field("node", node.as_str())
    };
    let joined = is.difference(was).map(|it| told(EventKind::NodeJoined, it, "votes from now on"));
    let left = was.difference(is).map(|it| told(EventKind::NodeRemoved, it, "is no member"));
    joined.chain(left).collect()
}

/// Pairs that do not hear each other while a third node hears both.
pub(super) fn cuts(cut: &mut BTreeSet<(NodeId, NodeId)>, after: &Seen) -> Vec<Draft> {
    let now = cut_now(after);
    let told = |kind, (a, b): &(NodeId, NodeId), what: &str| {
        Draft::new(kind, format!("{a} and {b} {what}"))
            .field("a", a.as_str())
            .field("b", b.as_str())
    };
    let mut drafts: Vec<Draft> = now
        .difference(cut)
        .map(|pair| told(EventKind::LinkCut, pair, "do not hear each other, though others do"))
        .collect();
    // A pair is healed once both say so, not when one of them is no longer heard.
    let healed: Vec<_> = cut.difference(&now).filter(|pair| hear_each_other(after, pair)).collect();
    drafts.extend(
        healed.iter().map(|pair| told(EventKind::LinkHealed, pair, "hear each other again")),
    );
    let healed: BTreeSet<_> = healed.into_iter().cloned().collect();
    *cut = cut.union(&now).filter(|pair| !healed.contains(*pair)).cloned().collect();
    drafts
}

fn cut_now(seen: &Seen) -> BTreeSet<(NodeId, NodeId)> {
    let nodes: Vec<&NodeId> = seen.config.nodes.keys().collect();
    let link = |from: &NodeId, to: &NodeId| seen.fresh(from)?.links.get(to).copied();
    let limit = seen.suspicion();
    let silent = |from: &NodeId, to: &NodeId| {
        let found = link(from, to);
        matches!(found, Some(Link::Silent(age)) if age >= limit)
    };
    let hears = |from: &NodeId, to: &NodeId| matches!(link(from, to), Some(Link::Up(_)));
    let mut cut = BTreeSet::new();
    for (index, a) in nodes.iter().enumerate() {
        for b in nodes.iter().skip(index + 1) {
            let is_silent = silent(a, b) || silent(b, a);
            let third = |it: &&&NodeId| **it != *a && **it != *b && hears(it, a) && hears(it, b);
            if is_silent && nodes.iter().any(|it| third(&it)) {
                cut.insert(((*a).clone(), (*b).clone()));
            }
        }
    }
    cut
}

fn hear_each_other(seen: &Seen, (a, b): &(NodeId, NodeId)) -> bool {
    let hears = |from: &NodeId, to: &NodeId| {
        seen.fresh(from).is_some_and(|facts| matches!(facts.links.get(to), Some(Link::Up(_))))
    };
    hears(a, b) && hears(b, a)
}
