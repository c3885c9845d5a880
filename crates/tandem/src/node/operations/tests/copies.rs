//! What operators are told of copies that run side by side.

use super::super::copies::{self, verbs::may_be_away, verbs::round_in_words};
use super::super::seen::Seen;
use super::super::status;
use super::*;
use crate::api::status::{InstanceState, ServiceStatus};
use crate::telemetry::codes;

const WEB: &str = r#"
[services.web]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/app"]
listen = 8080
"#;

/// Every copy serves, but for what is changed of each.
fn seen(change: impl Fn(&str, &mut InstanceFacts)) -> Seen {
    let mut seen = cluster(&format!("{THREE}{WEB}"), "b");
    for node in ["a", "b", "c"] {
        let mut facts = seen.facts[&NodeId::from(node)].last_known().clone();
        let mut own = InstanceFacts {
            process: Process::Primary,
            promoted: Term(1),
            serving: Some(Term(1)),
            ..InstanceFacts::default()
        };
        change(node, &mut own);
        facts.instances.insert("web".into(), own);
        seen.facts.insert(node.into(), Observed::new(facts, NOW));
    }
    seen
}

fn web(seen: &Seen) -> ServiceStatus {
    let all = status::status(seen, &|_| None).services;
    all.into_iter().find(|it| it.name.as_str() == "web").unwrap()
}

fn told(change: impl Fn(&str, &mut InstanceFacts)) -> ServiceStatus {
    web(&seen(change))
}

fn drain(seen: &mut Seen, node: &str) {
    let mut state = ClusterState::clone(&seen.agreed);
    state.draining.insert(node.into());
    seen.agreed = Arc::new(state);
}

fn of(web: &ServiceStatus, node: &str) -> (InstanceState, String) {
    let own = web.instances.iter().find(|it| it.node.as_str() == node).unwrap();
    (own.state, own.reason.clone().unwrap_or_default())
}

#[test]
fn copies_that_serve_need_no_words_whatever_was() {
    let web = told(|node, own| own.starts_failed = u32::from(node == "a"));
    let copies = web.copies.clone().unwrap();
    assert_eq!((copies.wanted, copies.serving, web.term), (3, 3, Term(1)));
    assert_eq!(of(&web, "a"), (InstanceState::Running, String::new()), "it is back");
    assert_eq!(web.warnings, Vec::<String>::new());
}

#[test]
fn what_keeps_a_copy_from_serving_is_told() {
    let web = told(|node, own| match node {
        "a" => (own.process, own.serving, own.starts_failed) = (Process::Stopped, None, 5),
        "b" => own.withdrawn = Some(NOW),
        _ => own.pending_restart = true,
    });
    let (state, why) = of(&web, "a");
    assert_eq!(state, InstanceState::CrashLoop);
    assert_eq!(why, "it failed 5 times in a row: see output.log there");
    assert_eq!(of(&web, "b").0, InstanceState::Draining);
    assert_eq!(of(&web, "c").1, "it waits for its turn to start anew");
    assert_eq!(web.copies.unwrap().serving, 1);
    assert!(web.warnings[0].contains("1 of 3 copies serve; not on a, b"), "{:?}", web.warnings);
    assert!(web.warnings[1].starts_with("crash loop"), "{:?}", web.warnings);
}

#[test]
fn one_that_is_to_end_is_none_of_those_that_are_wanted() {
    let mut seen = seen(|node, own| own.serving = own.serving.filter(|_| node != "b"));
    drain(&mut seen, "c");
    let copies = web(&seen).copies.unwrap();
    assert_eq!((copies.serving, copies.wanted), (1, 2), "c serves besides");
    let warnings = web(&seen).warnings;
    assert!(warnings[0].contains("1 of 2 copies serve; not on b"), "{warnings:?}");
    let page = copies::explain(seen.service(&"web".into()).unwrap(), Vec::new());
    assert_eq!(page.summary, "1 of 2 copies serve, on a; c serves until it may end");
}

#[test]
fn inv14_the_only_copy_that_serves_is_not_restarted_by_hand() {
    let mut seen = seen(|node, own| own.serving = own.serving.filter(|_| node != "b"));
    let refused = |seen: &Seen, node: &str| {
        let of = seen.service(&"web".into()).unwrap();
        may_be_away(of, &node.into(), "cannot restart web").err().map(|it| it.code)
    };
    assert_eq!(refused(&seen, "a"), None, "c serves");
    assert_eq!(refused(&seen, "b"), None, "it serves nobody");
    drain(&mut seen, "c");
    assert_eq!(refused(&seen, "a"), Some(codes::LAST_COPY), "c is to end");
}

#[test]
fn who_had_no_turn_is_named() {
    let mut seen = seen(|_, own| own.promoted = Term(2));
    let words = |seen: &Seen| round_in_words(seen.service(&"web".into()).unwrap(), Term(2));
    assert_eq!(words(&seen), "every copy of web was started anew, one at a time");
    seen.facts.remove(&NodeId::from("c"));
    let said = words(&seen);
    assert!(said.starts_with("2 of 3 copies of web were started anew"), "{said}");
    assert!(said.contains("not on c: it does not answer"), "{said}");
}
