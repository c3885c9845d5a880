//! What is said of partitions goes by what the controller would plan.

use super::*;
use crate::clustering::active_active::standing::{Shares, Standing, State, Wait, shares, standing};

impl Case {
    fn looked<T>(&self, look: impl FnOnce(&ControllerView<'_>) -> T) -> T {
        let service = work();
        look(&ControllerView {
            me: &"b".into(),
            service: &service,
            spec: &self.state.spec.services[&service],
            nodes: &self.state.spec.nodes,
            draining: &self.state.draining,
            state: &self.state.services[&service],
            services: &self.state.services,
            facts: &self.facts,
            trails: &Trails::default(),
            unix_ms: NOW_MS,
        })
    }

    fn standing(&self, partition: u32) -> Standing {
        self.looked(|view| standing(view, PartitionId(partition), NOW)).unwrap()
    }

    fn shares(&self) -> Shares {
        self.looked(|view| shares(view, NOW)).unwrap()
    }

    /// Owned, to be released, to be owned in the end.
    fn share(&self, node: &str) -> (Vec<u32>, Vec<u32>, u32) {
        let share = &self.shares().nodes[&NodeId::from(node)];
        let ids = |all: &[PartitionId]| all.iter().map(|id| id.0).collect();
        (ids(&share.owned), ids(&share.releasing), share.wanted)
    }

    fn released(&mut self, node: &str, ids: &[u32]) {
        let table = self.state.services[&work()].partitions.as_ref().unwrap().since;
        self.own(node, |own| {
            own.seat.table = table;
            own.seat.released = ids.iter().map(|id| (PartitionId(*id), Epoch(1))).collect();
        });
    }
}

#[test]
fn what_stays_waits_for_nothing_and_what_is_nobodys_for_the_leader() {
    let mut case = case(6);
    let it = case.standing(0);
    assert_eq!((it.state, it.owner, it.wait), (State::Unowned, None, Wait::Plan));
    assert_eq!(it.to, Some("a".into()));
    assert_eq!(case.shares().unowned.len(), 6);
    case.go();
    let it = case.standing(5);
    assert_eq!((it.epoch, it.state, it.to), (Epoch(1), State::Owned, None));
    assert_eq!((it.wait, it.because.text()), (Wait::Nothing, "c owns it: well"));
    assert_eq!(case.share("c"), (vec![4, 5], vec![], 2));
    assert_eq!(case.looked(|view| standing(view, PartitionId(6), NOW)), None);
}

#[test]
fn a_release_is_waited_for_by_name_until_it_is_said() {
    let mut case = case(6);
    case.go();
    case.state.draining.insert("c".into());
    let it = case.standing(4);
    assert_eq!((it.state, it.wait, it.to), (State::Owned, Wait::Plan, Some("a".into())));
    case.go();
    let it = case.standing(4);
    assert_eq!((it.state, &it.wait), (State::Releasing, &Wait::Release("c".into())));
    assert_eq!((it.wait.node(), it.to), (Some(&"c".into()), Some("a".into())));
    assert_eq!(
        it.because.text(),
        "c was asked to release it to a, and has not said yet that it did"
    );
    assert_eq!(case.share("c"), (vec![4, 5], vec![4, 5], 0));
    assert_eq!((case.share("a").2, case.share("b").2), (3, 3));
    assert_eq!(case.shares().nodes[&"c".into()].why, "is being emptied");
    case.released("c", &[4]);
    assert_eq!((case.standing(4).wait, case.standing(5).wait), (Wait::Plan, it.wait));
    case.state.draining.clear();
    case.released("c", &[]);
    let it = case.standing(5);
    assert_eq!((it.state, it.wait, it.to), (State::Releasing, Wait::Plan, None));
    assert!(it.because.text().starts_with("c keeps it after all"), "{}", it.because);
}

#[test]
fn the_owner_that_is_not_heard_is_waited_for_until_it_is_proven_gone() {
    let mut case = case(6);
    case.go();
    case.lose("a");
    let it = case.standing(0);
    assert_eq!((it.state, it.owner), (State::Owned, Some("a".into())));
    assert_eq!((it.wait, it.to), (Wait::Proof("a".into()), Some("b".into())));
    assert!(
        it.because.text().starts_with("a owns it: it is not heard; b gets it"),
        "{}",
        it.because
    );
    case.sit("a", 2, Earlier::Gone);
    case.lose("a");
    let it = case.standing(0);
    assert_eq!((it.state, it.wait, it.to), (State::Lost, Wait::Plan, Some("b".into())));
    assert_eq!(case.shares().unowned, [PartitionId(0), PartitionId(1)]);
}

#[test]
fn who_may_not_have_it_is_named_with_the_reason() {
    let mut case = case(3);
    for node in NAMES {
        case.own(node, |own| {
            (own.process, own.serving, own.starts_failed) = (Process::Stopped, None, 4);
        });
    }
    let it = case.standing(1);
    assert_eq!((it.state, it.wait, it.to), (State::Unowned, Wait::Taker, None));
    let text = "no node may be given it; a: its copy failed 4 times in a row; b: ";
    assert!(it.because.text().starts_with(text), "{}", it.because);
}

#[test]
fn nothing_moves_while_it_is_paused() {
    let mut case = case(3);
    case.go();
    case.state.draining.insert("c".into());
    case.apply(&work(), ServiceCommand::Pause { paused: true });
    assert_eq!(case.standing(2).wait, Wait::Resume);
}
