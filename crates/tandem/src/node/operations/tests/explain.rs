use super::super::explain::{explain, planned};
use super::*;
use crate::api::status::Phase;
use crate::driver::explain::Explained;

fn plan(unix_ms: u64, steps: &[&str], reason: &str) -> Explained {
    let steps = steps.iter().map(|step| (*step).to_owned()).collect();
    Explained { unix_ms, who: "controller", steps, reason: reason.into(), times: 2 }
}

#[test]
fn a_primary_that_serves_says_so_with_numbers() {
    let seen = healthy("b");
    let plans = [("c", plan(2, &["Recruit"], "new")), ("a", plan(1, &[], "old"))];
    let plans = plans.into_iter().map(|(by, plan)| planned(&by.into(), plan)).collect();
    let explanation = explain(of(&seen), plans);
    assert_eq!(explanation.summary, "a serves term 1");
    let [reason] = &explanation.no_failover_because[..] else { panic!() };
    assert_eq!(reason.text, "a serves");
    assert_eq!(reason.numbers["suspicion_ms"], 1000);
    let plans: Vec<_> = explanation.plans.iter().map(|it| it.plan.as_str()).collect();
    assert_eq!(plans, ["controller: Recruit", "controller: wait"], "newest first");
    assert_eq!(explanation.plans[0].times, 2);
    assert_eq!(explanation.plans[0].by, "c".into(), "whoever made it");
    assert_eq!(explanation.history.len(), 1);
    assert!(explanation.history[0].active_unix_ms.is_some());
}

#[test]
fn a_plan_of_the_core_is_told_in_words_and_its_numbers_by_name() {
    let mut seen = healthy("c");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    let made = tandem_core::clustering::active_passive::controller::plan(&of(&seen).view(), NOW);
    let kept = crate::driver::explain::Explanations::default();
    kept.planned(&orders(), &made);
    let [explained] = &kept.of(&orders())[..] else { panic!() };
    let told = planned(&"c".into(), explained.clone());
    assert_eq!(
        told.plan,
        "controller: ask a to promise term 2; ask b to promise term 2; ask c to promise term 2"
    );
    assert_eq!(
        told.reason.text,
        "electing for term 2: a reports that its postmaster ended; promised with data: nobody; \
         that does not meet every commit quorum of a+any 1 of (b,c)"
    );
    let numbers = serde_json::to_value(&told.reason.numbers).unwrap();
    let expected = serde_json::json!({ "election_term": 2, "holders": 0, "rules": 1 });
    assert_eq!(numbers, expected);
}

#[test]
fn a_lost_primary_is_being_replaced_or_the_reason_is_said() {
    let mut seen = healthy("b");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    let explanation = explain(of(&seen), Vec::new());
    assert_eq!(explanation.phase, Phase::Electing);
    assert_eq!(explanation.no_failover_because, Vec::new(), "one is under way");
    agree(&mut seen, ServiceCommand::Pause { paused: true });
    let explanation = explain(of(&seen), Vec::new());
    assert!(explanation.no_failover_because[0].text.contains("paused"));
    assert!(explanation.summary.contains("paused"), "{}", explanation.summary);
}

#[test]
fn no_evidence_is_named() {
    let mut seen = healthy("b");
    seen.now = seen.now.plus(Duration::from_secs(3));
    // Only this node itself is heard.
    say(&mut seen, "b", |facts| {
        for link in facts.links.values_mut() {
            *link = Link::Silent(Duration::from_secs(3));
        }
        let own = facts.instances.get_mut(&orders()).unwrap();
        own.stream = Stream::None;
    });
    let explanation = explain(of(&seen), Vec::new());
    let text = &explanation.no_failover_because[0].text;
    assert!(text.starts_with("no evidence: a: 0 refused, 1 silent"), "{text}");
}

#[test]
fn a_primary_that_flaps_waits() {
    let mut seen = healthy("b");
    for term in 2..8 {
        let next = if term % 2 == 0 { "b" } else { "a" };
        let command = appoint(term, next, Cause::PostmasterDied, vec![rule(next, &["c"])]);
        agree(&mut seen, command);
    }
    // The last appointment was noted a moment ago.
    seen.unix_ms += 10;
    instance(&mut seen, "a", |own| {
        own.process = Process::Stopped;
        own.promoted = Term(7);
    });
    let explanation = explain(of(&seen), Vec::new());
    let reason = &explanation.no_failover_because[0];
    assert!(reason.numbers.contains_key("wait_ms"), "{reason:?}");
}
