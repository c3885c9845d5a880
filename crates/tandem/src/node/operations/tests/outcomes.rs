use super::super::moves::switchover::{Move, progress};
use super::*;

fn end(seen: &Seen, asked: (tandem_core::ids::Revision, Term)) -> Move {
    progress(&state(seen), asked, Some(&"b".into()))
}

#[test]
fn a_request_is_pending_until_the_target_serves() {
    let mut seen = healthy("a");
    let asked = (state(&seen).revision, Term(1));
    assert_eq!(end(&seen, asked), Move::Pending, "not seen here yet");
    agree(&mut seen, ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 9 });
    assert_eq!(end(&seen, asked), Move::Pending);
    agree(&mut seen, appoint(2, "b", Cause::Switchover, vec![rule("b", &["a", "c"])]));
    assert_eq!(end(&seen, asked), Move::Pending, "its barrier is not confirmed");
    activate(&mut seen);
    assert!(matches!(end(&seen, asked), Move::Done(line) if line.term == Term(2)));
}

#[test]
fn an_end_without_the_target_is_told_apart() {
    let mut seen = healthy("a");
    let asked = (state(&seen).revision, Term(1));
    agree(&mut seen, ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 9 });
    let mut given_up = seen.clone();
    agree(&mut given_up, ServiceCommand::CancelSwitchover);
    assert_eq!(end(&given_up, asked), Move::GivenUp);
    agree(&mut seen, appoint(2, "c", Cause::NodeDied, vec![rule("c", &["a", "b"])]));
    assert!(matches!(end(&seen, asked), Move::Elsewhere(line) if line.primary.as_str() == "c"));
}

#[test]
fn the_words_of_the_plan_that_gave_up_are_found() {
    use super::super::moves::switchover::gave_up;
    let mut seen = healthy("a");
    let command = ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 9 };
    agree(&mut seen, command);
    let plan = tandem_core::clustering::active_passive::controller::plan(&of(&seen).view(), NOW);
    let kept = crate::driver::explain::Explanations::default();
    kept.planned(&orders(), &plan);
    let plans = kept.of(&orders());
    let words = gave_up(&plans).map(|plan| plan.reason.to_string());
    assert_eq!(words.as_deref(), Some("the switchover to b took too long"));
}

#[test]
fn a_schedule_of_another_node_is_forgotten_once_it_tells_no_more_of_it() {
    use super::super::moves::schedule::Told;
    let scheduled = crate::api::status::ScheduledSwitchover {
        to: None,
        at_unix_ms: UNIX_MS,
        kept_by: "b".into(),
    };
    let told = Told { scheduled, at: NOW };
    let after = |s| NOW.plus(Duration::from_secs(s));
    assert!(told.still_holds(after(20), UNIX_MS - 1).is_some());
    assert!(told.still_holds(after(40), UNIX_MS - 1).is_none(), "its keeper is silent");
    assert!(told.still_holds(after(1), UNIX_MS).is_none(), "its time has come");
}

#[test]
fn a_node_is_empty_only_once_the_new_primary_serves() {
    use super::super::verbs::unsettled;
    let mut seen = healthy("a");
    let on_it = [orders()].into();
    assert!(unsettled(&seen.agreed, &on_it).is_empty());
    agree(&mut seen, ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 9 });
    assert_eq!(unsettled(&seen.agreed, &on_it), [&orders()]);
    agree(&mut seen, appoint(2, "b", Cause::Switchover, vec![rule("b", &["a", "c"])]));
    assert_eq!(unsettled(&seen.agreed, &on_it), [&orders()], "b promotes");
    activate(&mut seen);
    assert!(unsettled(&seen.agreed, &on_it).is_empty());
}

#[test]
fn a_reload_that_did_not_reach_every_node_names_them() {
    use super::super::wishes::not_reloaded;
    use crate::telemetry::codes;
    use crate::telemetry::problem::Problem;
    let failed = |because: &str| Err(Problem::new(codes::OPERATION_FAILED, "w", because, "t"));
    let [a, b, c] = ["a", "b", "c"].map(NodeId::from);
    let answers = [(&a, Ok(())), (&b, failed("no answer")), (&c, failed("c: it does not run"))];
    let problem = not_reloaded("cannot reload orders", &["a".to_owned()], &answers).unwrap_err();
    assert_eq!(problem.because, "b: no answer; c: it does not run; loaded again on a");
    assert_eq!(problem.code, codes::OPERATION_FAILED);
    assert!(not_reloaded("w", &["a".to_owned()], &[(&a, Ok(()))]).is_ok());
}

#[test]
fn what_came_and_went_is_found_in_the_history() {
    let mut seen = healthy("a");
    let asked = (state(&seen).revision, Term(1));
    agree(&mut seen, appoint(2, "b", Cause::Switchover, vec![rule("b", &["a", "c"])]));
    activate(&mut seen);
    agree(&mut seen, appoint(3, "c", Cause::NodeDied, vec![rule("c", &["a", "b"])]));
    assert!(matches!(end(&seen, asked), Move::Done(line) if line.term == Term(2)));
}

#[test]
fn only_what_is_left_of_a_command_has_a_drain_max() {
    use super::super::verbs::why_left;
    let to = || ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: u64::MAX };
    let command = THREE
        .replace("\"postgres\"", "\"command\"\ncommand = [\"/srv/orders\"]")
        .replace("\"primary-replica\"", "\"none\"");
    let why = |text: &str, moves: bool| {
        let mut seen = cluster(text, "a");
        if moves {
            agree(&mut seen, to());
        }
        why_left(&seen.agreed, &[orders()].into())
    };
    assert_eq!(why(&command, false), "no other node can take over yet");
    assert!(why(&command, true).ends_with("clients there have up to drain_max to end"));
    assert_eq!(why(THREE, true), "they are being moved");
}
