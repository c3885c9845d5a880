//! Decides what each fault does to a drilled service, and what ends it.
//! In: who is who. Out: `Injection`: deeds.
//! Not here: how a deed is done (`stage.rs`).
//! Tested by: below.

use super::subject::Subject;
use crate::drill::view::About;
use crate::drill::worker::Behaviour;
use crate::drill::{Action, Fault};
use tandem_core::ids::NodeId;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// To the cluster.
    To(Action),
    /// SIGKILL to an endpoint.
    Kill(usize),
    /// Starts a killed one again.
    Restart(usize),
    /// SIGSTOP to an endpoint.
    Freeze(usize),
    /// Ends that.
    Thaw(usize),
    /// Tells an endpoint how to answer.
    Behave(usize, Behaviour),
    /// Tells a node's copy how to answer.
    BehaveAt(NodeId, Behaviour),
    /// A command of an operator, at a node: `tandem WORDS`.
    Operate(NodeId, Vec<String>),
    /// Another configuration, at a node.
    Apply(NodeId, Shape),
    /// A new node joins, which an operator asks another one for.
    Join(NodeId, NodeId),
    /// It leaves again: it is drained, removed, and its machine emptied.
    Leave(NodeId, NodeId),
}

/// What a configuration may differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// An endpoint that is not listed.
    pub without: Option<usize>,
    /// Copies on so many nodes, not on each.
    pub replicas: Option<usize>,
    /// A command that is another one to Tandem, and does the same.
    pub changed: bool,
    /// A node that can do more work than the others.
    pub greater: Option<NodeId>,
    /// One node more.
    pub added: bool,
}

/// Copies that are left where some are taken away.
pub const FEWER: usize = 2;

/// Who is who before a fault.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Where the only copy runs, or a node by lot.
    pub node: NodeId,
    /// Another one, which stays: operators ask it.
    pub other: NodeId,
    /// One that is no node yet.
    pub spare: NodeId,
    /// An endpoint by lot.
    pub endpoint: usize,
    /// Its address.
    pub address: String,
}

/// What a fault comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// What to do.
    pub inject: Vec<Deed>,
    /// What ends it; empty where it ends by itself.
    pub heal: Vec<Deed>,
}

impl Cast {
    /// Whom a fault is about, by the name that it writes to the ledger.
    pub fn victim(&self, subject: Subject, fault: Fault) -> &str {
        if fault == Fault::Scale {
            return self.spare.as_str();
        }
        let of_endpoint = !matches!(
            fault,
            Fault::NodeKill | Fault::DaemonKill | Fault::DaemonFreeze | Fault::NodeCut
        );
        let name = super::kit::ENDPOINT_NAMES.get(self.endpoint);
        match name.filter(|_| subject.has_endpoints() && of_endpoint) {
            Some(name) => name,
            None => self.node.as_str(),
        }
    }
}

/// Of one of whom something must be said, where a fault is to be noticed by nodes. By none, if it
/// is over before any may doubt the victim: there its process shows that it was away (`steps.rs`).
pub fn noticed_of(subject: Subject, fault: Fault, cast: &Cast) -> Vec<About> {
    let endpoint = || About::Endpoint(cast.address.clone());
    match fault {
        Fault::InstanceFreeze | Fault::Drain if subject.has_endpoints() => vec![endpoint()],
        // It is listed no more, so that the number is not right; or shown until its work is over.
        Fault::Resize if subject.has_endpoints() => vec![About::Service, endpoint()],
        Fault::Resize => vec![About::Service],
        Fault::DaemonKill => Vec::new(),
        _ => vec![About::Node(cast.node.clone())],
    }
}

/// What ends whatever was done to a service, as far as the cluster's own mending does not.
pub fn mending(subject: Subject, nodes: &[NodeId]) -> Vec<Deed> {
    let Some(first) = nodes.first() else { return Vec::new() };
    let mut deeds = Vec::new();
    let does = |fault| subject.faults().contains(&fault);
    if !subject.has_endpoints() && (does(Fault::Lie) || does(Fault::Slow)) {
        deeds.extend(nodes.iter().map(|node| Deed::BehaveAt(node.clone(), Behaviour::Well)));
    }
    if does(Fault::Scale) || does(Fault::Resize) || does(Fault::Change) {
        deeds.push(Deed::Apply(first.clone(), Shape::default()));
    }
    let undrain =
        |node: &NodeId| Deed::Operate(first.clone(), vec!["undrain".to_owned(), node.to_string()]);
    deeds.extend(nodes.iter().map(undrain));
    deeds
}

/// What a fault does; none when it is not for this service.
pub fn injection(subject: Subject, fault: Fault, cast: &Cast) -> Option<Injection> {
    if !subject.faults().contains(&fault) {
        return None;
    }
    let (node, at, service) = (cast.node.clone(), cast.endpoint, super::kit::SERVICE);
    let to = |action: fn(NodeId) -> Action| Deed::To(action(node.clone()));
    let endpoints = subject.has_endpoints();
    let operate = |words: &[&str]| {
        Deed::Operate(cast.other.clone(), words.iter().map(ToString::to_string).collect())
    };
    let apply = |shape| Deed::Apply(cast.other.clone(), shape);
    let other_size = match subject.rules() {
        Subject::Copies => Shape { replicas: Some(FEWER), ..Shape::default() },
        Subject::Partitions => Shape { greater: Some(node.clone()), ..Shape::default() },
        _ => Shape { without: Some(at), ..Shape::default() },
    };
    let behave = |how| match endpoints {
        true => Deed::Behave(at, how),
        false => Deed::BehaveAt(node.clone(), how),
    };
    let (inject, heal) = match fault {
        Fault::InstanceKill if endpoints => (Deed::Kill(at), Some(Deed::Restart(at))),
        Fault::InstanceKill => (to(Action::KillCommand), None),
        Fault::InstanceFreeze if endpoints => (Deed::Freeze(at), Some(Deed::Thaw(at))),
        Fault::InstanceFreeze => (to(Action::FreezeCommand), Some(to(Action::ThawCommand))),
        Fault::NodeKill => (to(Action::KillNode), Some(to(Action::RestoreNode))),
        Fault::DaemonKill => (to(Action::KillDaemon), None),
        Fault::DaemonFreeze => (to(Action::FreezeDaemon), Some(to(Action::ThawDaemon))),
        Fault::NodeCut => (to(Action::CutNode), Some(to(Action::HealNode))),
        // The process that takes its place knows nothing of it.
        Fault::Slow if subject.mends_itself(fault) => (behave(Behaviour::Stall), None),
        Fault::Lie if subject.mends_itself(fault) => (behave(Behaviour::Fail), None),
        Fault::Slow => (behave(Behaviour::Slow), Some(behave(Behaviour::Well))),
        Fault::Lie => (behave(Behaviour::Lie), Some(behave(Behaviour::Well))),
        Fault::Drain if endpoints => {
            let drain = |verb| operate(&[verb, "--service", service, "--endpoint", &cast.address]);
            (drain("drain"), Some(drain("undrain")))
        }
        Fault::Drain => {
            let drain = |verb| operate(&[verb, node.as_str()]);
            (drain("drain"), Some(drain("undrain")))
        }
        Fault::Resize => (apply(other_size), Some(apply(Shape::default()))),
        Fault::Scale => {
            let (via, node) = (cast.other.clone(), cast.spare.clone());
            (Deed::Join(via.clone(), node.clone()), Some(Deed::Leave(via, node)))
        }
        Fault::Restart => (operate(&["restart", service]), None),
        Fault::Change => {
            let changed = Shape { changed: true, ..Shape::default() };
            (apply(changed), Some(apply(Shape::default())))
        }
        Fault::Switchover => (operate(&["switchover", service]), None),
        _ => return None,
    };
    let mut inject = vec![inject];
    if (subject, fault) == (Subject::Singleton, Fault::Scale) {
        // By itself it stays where it is.
        inject.push(operate(&["switchover", service, "--to", cast.spare.as_str()]));
    }
    Some(Injection { inject, heal: heal.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_service_does_something_and_ends() {
        let cast = Cast {
            node: "b".into(),
            other: "c".into(),
            spare: "d".into(),
            endpoint: 1,
            address: "127.88.1.2:7490".into(),
        };
        for subject in Subject::ALL.iter().filter(|it| **it != Subject::Postgres) {
            for fault in subject.faults() {
                let it = injection(*subject, *fault, &cast).unwrap_or_else(|| panic!("{fault}"));
                let two = (*subject, *fault) == (Subject::Singleton, Fault::Scale);
                assert_eq!(it.inject.len(), 1 + usize::from(two), "{fault}");
            }
            assert_eq!(injection(*subject, Fault::DiskFull, &cast), None);
        }
        let drain = injection(Subject::Http, Fault::Drain, &cast).unwrap();
        let Deed::Operate(via, words) = &drain.heal[0] else { panic!("{drain:?}") };
        let expected = "undrain --service drill --endpoint 127.88.1.2:7490";
        assert_eq!((via.as_str(), words.join(" ").as_str()), ("c", expected));
        let drain = injection(Subject::Singleton, Fault::Drain, &cast).unwrap();
        assert_eq!(drain.inject, [Deed::Operate("c".into(), vec!["drain".into(), "b".into()])]);
        let of = |subject, fault| noticed_of(subject, fault, &cast);
        let endpoint = About::Endpoint(cast.address.clone());
        assert_eq!(of(Subject::Tcp, Fault::Resize), [About::Service, endpoint.clone()]);
        assert_eq!(of(Subject::Tcp, Fault::Drain), [endpoint]);
        assert_eq!(of(Subject::Http, Fault::NodeKill), [About::Node("b".into())]);
        assert_eq!(of(Subject::Copies, Fault::NodeCut), [About::Node("b".into())]);
        assert_eq!(of(Subject::Http, Fault::DaemonFreeze), [About::Node("b".into())]);
        assert_eq!(of(Subject::Http, Fault::DaemonKill), []);
    }

    #[test]
    fn whatever_was_done_to_copies_is_mended() {
        let nodes = ["a", "b"].map(NodeId::new);
        let deeds = mending(Subject::Copies, &nodes);
        for node in &nodes {
            assert!(deeds.contains(&Deed::BehaveAt(node.clone(), Behaviour::Well)), "no lie stays");
            let undrain = vec!["undrain".to_owned(), node.to_string()];
            assert!(deeds.contains(&Deed::Operate("a".into(), undrain)));
        }
        assert!(deeds.contains(&Deed::Apply("a".into(), Shape::default())));
        let endpoints = mending(Subject::Http, &nodes);
        assert!(!endpoints.iter().any(|it| matches!(it, Deed::BehaveAt(..))), "they mend theirs");
    }
}
