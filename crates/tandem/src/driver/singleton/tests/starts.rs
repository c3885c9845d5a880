//! What of the configuration reaches the keeper with a start: whom it runs as, where, how far.

use super::*;
use crate::fence::protocol::{Lease, Limit, StartSpec, User};
use crate::runtime::user;
use tandem_core::cluster::taken_out::TakenOut;
use tandem_core::spec::Copies;

/// Starts it; what the keeper was asked to run.
async fn started(mut it: Case) -> (Case, StartSpec) {
    it.hears(idle()).await;
    it.go_on(Answer::Done).await;
    loop {
        // Who its user is comes first, where it has one.
        if let Some(Command::Start(spec)) = it.written(Answer::Done).await.pop() {
            return (it, spec);
        }
    }
}

#[tokio::test]
async fn a_start_says_whom_it_runs_as_where_and_how_far() {
    // Another user is one that only root can become.
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    let name = if me.uid.is_root() { "nobody".to_owned() } else { me.name };
    let mut it = case(|config| {
        config.run_as = Some(name.clone());
        config.cwd = "/srv/{node}/work".into();
        config.env = [("PLACE".to_owned(), "of {node}".to_owned())].into();
    });
    it.driver.it.limits = [(Limit::Nofile, 4096), (Limit::Core, 0)].into();
    let (it, spec) = started(it).await;
    let expected = user::find(&name).unwrap();
    assert_eq!(expected.is_some(), me.uid.is_root(), "{name}");
    let expected = expected.map(|it| User { uid: it.uid, gid: it.gid, groups: it.groups });
    assert_eq!(spec.user, expected);
    assert_eq!(spec.cwd, std::path::Path::new("/srv/a/work"));
    assert_eq!(spec.limits, [(Limit::Nofile, 4096), (Limit::Core, 0)].into());
    assert_eq!(spec.argv, ["job"]);
    assert_eq!(spec.log_file, it.driver.it.config.log_file());
    assert_eq!((&*spec.env["PLACE"], &*spec.env["TANDEM_TERM"]), ("of a", "3"));
    assert!(matches!(spec.lease, Lease::Until(_)), "{:?}", spec.lease);
}

/// A hook, a check and what asks it to end are the copy's own, too.
#[tokio::test]
async fn what_runs_beside_it_runs_as_it_does() {
    let mut it = case(|config| config.on_start = vec!["attach".into(), "{node}".into()]);
    it.driver.it.limits = [(Limit::Nofile, 4096)].into();
    let (it, hook) = started(it).await;
    assert_eq!(hook.argv, ["attach", "a"]);
    let own = it.driver.spec(&["job".into()], hook.lease);
    assert_eq!(StartSpec { argv: own.argv.clone(), ..hook.clone() }, own);
}

/// What is taken out and put back.
fn taken_out(it: &Case, back: Option<Agreed>) {
    it.agreed.send_modify(|agreed| {
        let state = Arc::make_mut(&mut agreed.state);
        state.spec.services.clear();
        state.services.clear();
        if let Some(back) = back {
            *state = (*back.state).clone();
        }
    });
}

/// Its lease is far shorter than it may take.
#[tokio::test]
async fn what_is_taken_out_has_its_lease_until_it_has_ended_in_order() {
    let mut it = case(|config| config.on_stop = vec!["tidy up".into()]);
    it.runs().await;
    taken_out(&it, None);
    let asked = it.go_on(Answer::Done).await;
    assert!(asked.iter().any(|it| matches!(it, Command::Signal { .. })), "{asked:?}");
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Planned, .. }));
    assert_eq!(it.driver.own.outlives, Some(Term(3)), "others are supported in it as well");
    assert!(it.driver.own.is_leaving);
    for _ in 0..2 {
        // What was proven until now has nearly passed.
        let before = clock::now();
        it.driver.lease = before;
        let asked = it.go_on(Answer::Done).await;
        assert!(matches!(asked[..], [Command::Renew { .. }]), "{asked:?}");
        assert!(it.driver.lease > before);
    }
    it.hears(exited(Cause::Asked)).await;
    let asked = it.written(Answer::Done).await;
    assert!(matches!(asked[..], [Command::Start(_)]), "the hook after it: {asked:?}");
    // Whoever has its name now starts under a lease of its own.
    let mut back = agreed();
    let state = Arc::make_mut(&mut back.state).services.get_mut(&"jobs".into()).unwrap();
    (state.appointment, state.before.term) = (None, Term(3));
    taken_out(&it, Some(back));
    it.driver.lease = clock::now();
    let asked = it.go_on(Answer::Done).await;
    assert!(!asked.iter().any(|it| matches!(it, Command::Renew { .. })), "{asked:?}");
    assert_eq!(it.driver.own.outlives, Some(Term(0)));
}

/// Copies side by side have its name now: another driver waits for its folder.
#[tokio::test]
async fn what_has_another_pattern_ends_in_order_and_gives_way() {
    let mut it = case(|_| {});
    it.runs().await;
    let mut other = agreed();
    let spec = Arc::make_mut(&mut other.state).spec.services.get_mut(&"jobs".into()).unwrap();
    spec.copies = Some(Copies { replicas: None, drain_max: Duration::ZERO });
    taken_out(&it, Some(other.clone()));
    let asked = it.go_on(Answer::Done).await;
    assert!(matches!(asked[..], [Command::Signal { .. }]), "{asked:?}");
    assert!(matches!(it.driver.life, Life::Ending { why: Why::Planned, .. }));
    assert!(!it.driver.has_ended(), "it has not ended");
    it.hears(exited(Cause::Asked)).await;
    assert_eq!((it.driver.life, it.driver.own.process), (Life::Nothing, Process::Stopped));
    assert_eq!(it.go_on(Answer::Done).await, [], "nothing is started again");
    it.driver.writing = Some(Work::Promise(Term(4)));
    assert!(!it.driver.has_ended(), "what is late would undo what the next one notes");
    it.driver.writing = None;
    assert!(it.driver.has_ended());
    taken_out(&it, None);
    it.go_on(Answer::Done).await;
    assert!(!it.driver.has_ended(), "taken out alone it votes on");
    it.agreed.send_modify(|agreed| {
        let out = TakenOut { beside: true, ..TakenOut::default() };
        Arc::make_mut(&mut agreed.state).taken_out.insert("jobs".into(), out);
    });
    it.go_on(Answer::Done).await;
    assert!(it.driver.has_ended(), "it had another pattern, which came and went unseen");
}

/// It is being noted that it begins.
#[tokio::test]
async fn what_is_taken_out_before_it_has_begun_does_not_begin() {
    for hook in [Vec::new(), vec!["make room".into()]] {
        let mut it = case(|config| config.on_start = hook.clone());
        it.hears(idle()).await;
        assert_eq!(it.go_on(Answer::Done).await, []);
        if !hook.is_empty() {
            let asked = it.written(Answer::Done).await;
            assert!(matches!(asked[..], [Command::Start(_)]), "its hook: {asked:?}");
            let how = How::Code(0);
            let (at, gone) = (clock::now(), clock::now());
            let end = End { pid: 7, how, cause: Cause::ByItself, at, gone };
            it.hears(KeeperEvent::from(Event::Exited(end))).await;
        }
        assert_eq!(it.driver.own.process, Process::Starting);
        taken_out(&it, None);
        it.go_on(Answer::Done).await;
        assert_eq!(it.driver.own.process, Process::Stopped);
        assert_eq!(it.written(Answer::Done).await, [], "nothing is started");
        assert_eq!((it.driver.life, it.driver.own.process), (Life::Nothing, Process::Stopped));
    }
}
