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
fn what_came_and_went_is_found_in_the_history() {
    let mut seen = healthy("a");
    let asked = (state(&seen).revision, Term(1));
    agree(&mut seen, appoint(2, "b", Cause::Switchover, vec![rule("b", &["a", "c"])]));
    activate(&mut seen);
    agree(&mut seen, appoint(3, "c", Cause::NodeDied, vec![rule("c", &["a", "b"])]));
    assert!(matches!(end(&seen, asked), Move::Done(line) if line.term == Term(2)));
}
