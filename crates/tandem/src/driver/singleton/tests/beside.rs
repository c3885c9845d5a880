//! One of many copies: no lease, no appointment.

use super::*;
use crate::driver::singleton::beside::Beside;
use tandem_core::spec::Copies;

fn agreed_beside() -> Agreed {
    let Agreed { state, index } = agreed();
    let mut state = ClusterState::clone(&state);
    let pairing = Pairing::new(Kind::Command, Clustering::LoadBalanced, Replication::None);
    let copies = Some(Copies { replicas: None, drain_max: LONG });
    let spec = ServiceSpec::of_command(pairing.unwrap(), Timing::of_command());
    state.spec.services.insert("jobs".into(), ServiceSpec { copies, ..spec });
    let node = state.spec.nodes[&"a".into()].clone();
    state.spec.nodes.insert("b".into(), node);
    state.services.insert("jobs".into(), ServiceState::default());
    Agreed { state: Arc::new(state), index }
}

fn copy(change: impl FnOnce(&mut CommandConfig)) -> (Case, CancellationToken) {
    let mut it = case(change);
    let ends = CancellationToken::new();
    it.driver.it.beside = Some(Beside::new(ends.clone()));
    it.agreed.send_replace(agreed_beside());
    (it, ends)
}

#[tokio::test]
async fn inv14_one_that_is_found_running_stays_until_its_checks_say_how_it_is() {
    let (mut it, _ends) = copy(|config| config.health = exec(&["true"]));
    it.driver.durable = State { runs: Runs::Command, recipe: 1, ..State::default() };
    it.hears(running()).await;
    assert_eq!(it.go_on(Answer::Done).await, []);
    assert!(it.driver.own.pending_restart, "it runs as an earlier configuration said");
    assert_eq!(it.driver.own.withdrawn, None, "it may be the only one that serves");
    let life = it.driver.lives;
    it.driver.on_checked(life, Ok(())).await;
    it.go_on(Answer::Done).await;
    assert_eq!((it.driver.own.withdrawn, it.driver.own.serving), (None, Some(Term(0))));
}

#[tokio::test]
async fn its_end_is_never_lost() {
    let (mut it, ends) = copy(|_| {});
    it.hears(idle()).await;
    let full = || Change::Config(Box::new(config(std::path::Path::new("/"))), BTreeMap::new());
    while it._rest.3.try_send(full()).is_ok() {}
    ends.cancel();
    it.go_on(Answer::Done).await;
    assert!(it.driver.has_ended(), "whatever waits before it");
}

/// INV-12: its task has not heard yet that its name has another pattern.
#[tokio::test]
async fn nothing_is_started_side_by_side_of_what_is_under_a_lease_now() {
    for (now, starts) in [(agreed_beside(), true), (agreed(), false)] {
        let (mut it, _ends) = copy(|_| {});
        it.agreed.send_replace(now);
        it.hears(idle()).await;
        it.go_on(Answer::Done).await;
        let process = if starts { Process::Starting } else { Process::Stopped };
        assert_eq!((it.driver.own.process, it.driver.writing.is_some()), (process, starts));
    }
}
