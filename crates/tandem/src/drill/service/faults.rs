//! Decides what each fault does to a drilled service, and what ends it.
//! In: who is who. Out: `Injection`: deeds.
//! Not here: how a deed is done (`stage.rs`).
//! Tested by: below.

use super::subject::Subject;
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
}

/// What a configuration may differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// An endpoint that is not listed.
    pub without: Option<usize>,
    /// Copies on so many nodes, not on each.
    pub replicas: Option<usize>,
}

/// Copies that are left where some are taken away.
const FEWER: usize = 2;

/// Who is who before a fault.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Where the only copy runs, or a node by lot.
    pub node: NodeId,
    /// Another one, which stays: operators ask it.
    pub other: NodeId,
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
    let smaller = match subject {
        Subject::Copies => Shape { replicas: Some(FEWER), ..Shape::default() },
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
        Fault::Scale => (apply(smaller), Some(apply(Shape::default()))),
        Fault::Switchover => (operate(&["switchover", service]), None),
        _ => return None,
    };
    Some(Injection { inject: vec![inject], heal: heal.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_a_service_does_something_and_ends() {
        let cast = Cast {
            node: "b".into(),
            other: "c".into(),
            endpoint: 1,
            address: "127.88.1.2:7490".into(),
        };
        for subject in Subject::ALL.iter().filter(|it| **it != Subject::Postgres) {
            for fault in subject.faults() {
                let it = injection(*subject, *fault, &cast).unwrap_or_else(|| panic!("{fault}"));
                assert_eq!(it.inject.len(), 1, "{fault}");
            }
            assert_eq!(injection(*subject, Fault::DiskFull, &cast), None);
        }
        let drain = injection(Subject::Http, Fault::Drain, &cast).unwrap();
        let Deed::Operate(via, words) = &drain.heal[0] else { panic!("{drain:?}") };
        let expected = "undrain --service drill --endpoint 127.88.1.2:7490";
        assert_eq!((via.as_str(), words.join(" ").as_str()), ("c", expected));
        let drain = injection(Subject::Singleton, Fault::Drain, &cast).unwrap();
        assert_eq!(drain.inject, [Deed::Operate("c".into(), vec!["drain".into(), "b".into()])]);
    }
}
