//! Talks to every node again and again, and decides whether a drilled service is whole.
//! In: statuses. Out: `View`, with the moment since which it is whole.
//! Whole is: every node answers, knows of all that are asked and no other, and sees them up; the
//! only copy runs and all agree where, or every endpoint is up at every door, with copies one on
//! each node; of divided work every node has its part, and nothing moves.
//! Tested by: below.

use super::kit::{ENDPOINT_NAMES, SERVICE};
use super::subject::Subject;
use crate::dev::DevCluster;
use crate::dev::status::{InstanceStatus, NodeStatus, ServiceStatus, Status, UpstreamStatus};
use crate::drill::view::{About, View};
use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::sync::watch;

/// As many as the drill runs itself.
const ENDPOINTS: usize = ENDPOINT_NAMES.len();
/// As often as nodes tell each other what changed.
const BEAT: Duration = Duration::from_millis(50);

/// Watches as long as `tasks` run.
pub fn watch(
    tasks: &Supervisor,
    cluster: Arc<DevCluster>,
    subject: Subject,
    members: watch::Receiver<Vec<NodeId>>,
) -> watch::Receiver<View> {
    let unseen = View { shortcoming: Some("nobody was asked yet".into()), ..View::default() };
    let (sender, view) = watch::channel(unseen);
    let stop = tasks.stopping();
    tasks.spawn("drill observer", TaskKind::Session, async move {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = beat.tick() => {}
            }
            let (nodes, asked_at) = (members.borrow().clone(), clock::now());
            let asked = nodes.iter().map(|node| cluster.status(node));
            let answers = futures::future::join_all(asked).await;
            let answers: Vec<Option<Status>> = answers.into_iter().map(Result::ok).collect();
            // One of the drill's own, or a copy on each node.
            let endpoints = if subject.has_endpoints() { ENDPOINTS } else { nodes.len() };
            let merged = merge(&nodes, &answers, (subject, endpoints));
            let mut view = View { asked_at, ..merged };
            if view.shortcoming.is_none() {
                let since = sender.borrow().redundant_since;
                view.redundant_since = since.or_else(|| Some(clock::now()));
            }
            sender.send_replace(view);
        }
    });
    view
}

fn merge(
    nodes: &[NodeId],
    answers: &[Option<Status>],
    (subject, endpoints): (Subject, usize),
) -> View {
    let runs = answers.iter().flatten().filter_map(|status| status.service(SERVICE));
    let newest = runs.max_by_key(|service| service.term);
    let said = |(node, status): (&NodeId, &Option<Status>)| {
        let Some(status) = status else {
            let text = format!("{node} does not answer");
            return vec![(About::NoAnswer(node.clone()), text)];
        };
        let mut said = unheard(node, status);
        let (known, asked) = (status.nodes.len(), nodes.len());
        if known != asked {
            let text = format!("{node} knows of {known} nodes, and there are {asked}");
            said.push((About::Service, text));
        }
        let own = status.service(SERVICE);
        let of_service = |text| vec![(About::Service, text)];
        said.extend(match subject.rules() {
            Subject::Singleton => singleton(node, own, newest).map(of_service).unwrap_or_default(),
            Subject::Partitions => divided(own).map(of_service).unwrap_or_default(),
            Subject::Copies => {
                let own = copies(own).map(of_service);
                own.unwrap_or_else(|| balanced(node, status, endpoints))
            }
            Subject::Http | Subject::Tcp => balanced(node, status, endpoints),
            Subject::Postgres | Subject::Sessions | Subject::Keys => {
                of_service("it has a drill of its own".to_owned())
            }
        });
        said
    };
    let said: Vec<(About, String)> = nodes.iter().zip(answers).flat_map(said).collect();
    View {
        primary: newest.and_then(|service| service.primary.clone()),
        leader: answers.iter().flatten().find_map(|status| status.leader.clone()),
        shortcoming: said.first().map(|(_, text)| text.clone()),
        asked: nodes.len(),
        blamed: said.into_iter().map(|(about, _)| about).collect(),
        ..View::default()
    }
}

fn unheard(node: &NodeId, status: &Status) -> Vec<(About, String)> {
    let unheard = status.nodes.iter().filter(|it| it.state.as_deref() != Some("up"));
    let said = |it: &NodeStatus| {
        let state = it.state.as_deref().unwrap_or("unknown");
        (About::Node(NodeId::new(&*it.name)), format!("{node} sees {} as {state}", it.name))
    };
    unheard.map(said).collect()
}

/// Whether a node has nothing of the service any more.
pub fn is_empty(status: &Status, node: &NodeId) -> bool {
    let Some(seen) = status.service(SERVICE) else { return false };
    let of_node = |name: &str| name == node.as_str();
    if let Some(divided) = &seen.partitions {
        // Its copy goes on, with nothing to do.
        return divided.nodes.iter().all(|it| !of_node(&it.node) || it.owned == 0);
    }
    let own = seen.instances.iter().find(|it| of_node(&it.node));
    let state = own.map_or(Some("absent"), |it| it.state.as_deref());
    seen.primary.as_ref() != Some(node) && matches!(state, Some("absent" | "stopped"))
}

fn singleton(
    node: &NodeId,
    seen: Option<&ServiceStatus>,
    newest: Option<&ServiceStatus>,
) -> Option<String> {
    let (Some(seen), Some(newest)) = (seen, newest) else {
        return Some(format!("{node} does not know the service"));
    };
    if seen.term != newest.term || seen.primary != newest.primary {
        return Some(format!("{node} does not know the newest term yet"));
    }
    let Some(primary) = &seen.primary else { return Some("it runs nowhere".into()) };
    let phase = seen.phase.as_deref().unwrap_or("unknown");
    if phase != "active" {
        return Some(format!("it is {phase} on {primary}, not active"));
    }
    let copy = seen.instances.iter().find(|it| it.node == primary.as_str());
    let state = copy.and_then(|it| it.state.as_deref()).unwrap_or("unknown");
    (state != "running").then(|| format!("the copy on {primary} is {state}"))
}

fn copies(seen: Option<&ServiceStatus>) -> Option<String> {
    let Some(seen) = seen.and_then(|service| service.copies.as_ref()) else {
        return Some("it has no copies".into());
    };
    let (serving, wanted) = (seen.serving, seen.wanted);
    if let Some(turn) = &seen.turn {
        return Some(format!("the copy on {turn} is started anew, in its turn"));
    }
    (serving != wanted).then(|| format!("{serving} of {wanted} copies serve"))
}

fn divided(seen: Option<&ServiceStatus>) -> Option<String> {
    let Some((seen, of)) = seen.and_then(|it| Some((it, it.partitions.as_ref()?))) else {
        return Some("it has no partitions".into());
    };
    if of.owned < of.count {
        return Some(format!("{} of {} partitions are owned", of.owned, of.count));
    }
    if let Some(moves) = of.nodes.iter().find(|it| it.releasing > 0) {
        return Some(format!("{} is to release {} partitions", moves.node, moves.releasing));
    }
    let owned = || of.nodes.iter().map(|it| it.owned);
    let (least, most) = (owned().min().unwrap_or(0), owned().max().unwrap_or(0));
    if most - least > 1 {
        return Some(format!("one node owns {most} partitions, another one {least}"));
    }
    let is_away = |it: &&InstanceStatus| it.state.as_deref() != Some("running");
    if let Some(away) = seen.instances.iter().find(is_away) {
        let state = away.state.as_deref().unwrap_or("unknown");
        return Some(format!("the copy on {} is {state}", away.node));
    }
    // One that serves, and of which something is said.
    let why = |it: &InstanceStatus| Some(format!("{}: {}", it.node, it.reason.as_ref()?));
    seen.instances.iter().find_map(why)
}

fn balanced(node: &NodeId, status: &Status, endpoints: usize) -> Vec<(About, String)> {
    let Some(service) = status.balanced.iter().find(|it| it.name == SERVICE) else {
        return vec![(About::Service, format!("{node} does not know the service"))];
    };
    let listed = service.upstreams.len();
    if listed != endpoints {
        return vec![(About::Service, format!("{node} knows {listed} of {endpoints} endpoints"))];
    }
    let down = service.upstreams.iter().filter(|it| it.state.as_deref() != Some("up"));
    let said = |it: &UpstreamStatus| {
        let state = it.state.as_deref().unwrap_or("unknown");
        let text = format!("{node} sees endpoint {} as {state}", it.address);
        (About::Endpoint(it.address.clone()), text)
    };
    down.map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(term: u64, state: &str, endpoint: &str) -> Option<Status> {
        let json = json!({
            "leader": "a",
            "nodes": [{"name": "a", "state": "up"}, {"name": "b", "state": "up"}],
            "services": [{"name": "drill", "term": term, "phase": "active", "primary": "b",
                "instances": [{"node": "b", "state": state}, {"node": "a", "state": "stopped"}]}],
            "balanced": [{"name": "drill", "upstreams": [
                {"address": "x:1", "state": "up"}, {"address": "y:1", "state": endpoint}]}],
        });
        Some(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn whole_only_when_everybody_sees_it() {
        let nodes = ["a", "b"].map(NodeId::new);
        let because = |answers: [Option<Status>; 2], subject, endpoints| {
            merge(&nodes, &answers, (subject, endpoints)).shortcoming.unwrap_or_default()
        };
        let good = || status(3, "running", "up");
        let one = |other| because([good(), other], Subject::Singleton, 0);
        assert_eq!(one(good()), "");
        assert_eq!(one(None), "b does not answer");
        assert_eq!(one(status(2, "running", "up")), "b does not know the newest term yet");
        assert_eq!(one(status(3, "starting", "up")), "the copy on b is starting");
        let two = |other, endpoints| because([good(), other], Subject::Http, endpoints);
        assert_eq!(two(good(), 2), "");
        assert_eq!(two(status(1, "running", "ejected"), 2), "b sees endpoint y:1 as ejected");
        assert_eq!(two(good(), 3), "a knows 2 of 3 endpoints");
        let answers = [None, status(1, "running", "ejected")];
        let blamed = merge(&nodes, &answers, (Subject::Http, 2)).blamed;
        let expected = [About::NoAnswer(nodes[0].clone()), About::Endpoint("y:1".into())];
        assert_eq!(blamed, expected.into(), "both are seen, whoever is told of first");
        // Asked before there was one more, and by a node that has not heard of it.
        assert_eq!(merge(&nodes, &[good(), good()], (Subject::Singleton, 0)).asked, 2);
        let more = ["a", "b", "c"].map(NodeId::new);
        let answers = [good(), good(), good()];
        let few = merge(&more, &answers, (Subject::Singleton, 0)).shortcoming.unwrap();
        assert_eq!(few, "a knows of 2 nodes, and there are 3");
        let answers = [good(), None];
        let alone = merge(&nodes, &answers, (Subject::Singleton, 0)).blamed;
        assert!(!alone.contains(&About::Node(nodes[1].clone())), "no node said a thing of b");
        assert_eq!(because([good(), good()], Subject::Copies, 2), "it has no copies");
        assert_eq!(because([good(), good()], Subject::Partitions, 0), "it has no partitions");
    }

    #[test]
    fn a_node_is_empty_once_nothing_runs_or_is_owned_there() {
        let [a, b, c] = ["a", "b", "c"].map(NodeId::new);
        let one = status(3, "running", "up").unwrap();
        assert!(is_empty(&one, &a) && !is_empty(&one, &b), "it runs on b");
        assert!(is_empty(&one, &c), "nothing is known of it");
        let json = json!({"services": [{"name": "drill",
            "instances": [{"node": "a", "state": "running"}, {"node": "b", "state": "running"}],
            "partitions": {"count": 2, "owned": 2, "nodes": [
                {"node": "a", "owned": 2}, {"node": "b", "owned": 0}]}}]});
        let divided = serde_json::from_value(json).unwrap();
        assert!(!is_empty(&divided, &a) && is_empty(&divided, &b));
        assert!(!is_empty(&Status::default(), &a), "it does not know the service");
    }

    #[test]
    fn divided_work_is_whole_once_every_node_has_its_part() {
        let seen = |owned: [u32; 2], releasing: u32, state: &str| -> Option<String> {
            let json = json!({"name": "drill", "instances": [{"node": "a", "state": state}],
                "partitions": {"count": 4, "owned": owned[0] + owned[1], "nodes": [
                    {"node": "a", "owned": owned[0], "releasing": 0},
                    {"node": "b", "owned": owned[1], "releasing": releasing}]}});
            divided(Some(&serde_json::from_value(json).unwrap()))
        };
        assert_eq!(seen([2, 2], 0, "running"), None);
        assert_eq!(seen([2, 1], 0, "running").unwrap(), "3 of 4 partitions are owned");
        assert_eq!(seen([1, 3], 1, "running").unwrap(), "b is to release 1 partitions");
        assert!(seen([0, 4], 0, "running").unwrap().contains("one node owns 4"));
        assert_eq!(seen([2, 2], 0, "starting").unwrap(), "the copy on a is starting");
    }
}
