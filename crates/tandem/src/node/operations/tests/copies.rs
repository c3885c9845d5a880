//! What operators are told of copies that run side by side.

use super::super::status;
use super::*;
use crate::api::status::{InstanceState, ServiceStatus};

const WEB: &str = r#"
[services.web]
kind = "command"
clustering = "load-balanced"
replication = "none"
command = ["/srv/app"]
listen = 8080
"#;

/// Every copy serves, but for what is changed of each.
fn told(change: impl Fn(&str, &mut InstanceFacts)) -> ServiceStatus {
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
    let all = status::status(&seen, &|_| None).services;
    all.into_iter().find(|it| it.name.as_str() == "web").unwrap()
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
