//! Verbs on the command line.

use super::{ok, refused};
use crate::api::operations::Verb;
use crate::api::tests::{fake, serve};
use crate::runtime::clock;
use crate::telemetry::codes;

#[tokio::test]
async fn every_verb_reaches_the_node() {
    let served = serve().await;
    let service = || "orders".into();
    let node = || "b".into();
    for (line, verb) in [
        (
            "switchover --to b",
            Verb::Switchover { service: service(), to: Some(node()), at_unix_ms: None },
        ),
        ("switchover orders --cancel", Verb::CancelSwitchover { service: service() }),
        (
            "failover --accept-loss",
            Verb::Failover { service: service(), to: None, accept_loss: true },
        ),
        ("pause", Verb::Pause { service: service() }),
        ("resume orders", Verb::Resume { service: service() }),
        ("reload", Verb::Reload { service: service() }),
        ("restart --node b", Verb::Restart { service: service(), node: Some(node()) }),
        ("restart", Verb::Restart { service: service(), node: None }),
        ("reinit orders --node b", Verb::Reinit { service: service(), node: node() }),
        ("drain b", Verb::Drain { node: node() }),
        ("undrain b", Verb::Undrain { node: node() }),
        (
            "drain --service cache --endpoint [fd00::1]:6379",
            Verb::DrainUpstream { service: "cache".into(), upstream: "[fd00::1]:6379".into() },
        ),
        (
            "undrain --service cache --endpoint e1:6379",
            Verb::UndrainUpstream { service: "cache".into(), upstream: "e1:6379".into() },
        ),
        ("remove b", Verb::RemoveNode { node: node() }),
    ] {
        assert_eq!(ok(&served, line).await, "done\n  term: 5\n", "{line}");
        assert_eq!(served.fake.asked.lock().unwrap().pop(), Some(verb), "{line}");
    }
    let text = ok(&served, "pause --json").await;
    assert_eq!(text, "{\"progress\":\"done\",\"message\":\"done\",\"fields\":{\"term\":5}}\n");
}

#[tokio::test]
async fn a_time_from_now_is_sent_as_a_moment() {
    let served = serve().await;
    let before = clock::unix_ms();
    assert_eq!(ok(&served, "switchover --at +5m").await, "scheduled\n");
    let asked = served.fake.asked.lock().unwrap().pop();
    let Some(Verb::Switchover { at_unix_ms: Some(at), .. }) = asked else { panic!("{asked:?}") };
    assert!((before + 300_000..=clock::unix_ms() + 300_000).contains(&at));
}

#[tokio::test]
async fn only_the_token_goes_to_stdout() {
    let served = serve().await;
    assert_eq!(ok(&served, "token d").await, "t0ken\n");
}

#[tokio::test]
async fn a_refusal_comes_through_word_for_word() {
    let served = serve().await;
    *served.fake.refuse.lock().unwrap() = Some(fake::refusal());
    let problem = refused(&served, "switchover").await;
    assert_eq!((problem.exit().status(), problem), (3, fake::refusal()));
}

#[tokio::test]
async fn a_name_cannot_leave_its_place_in_the_path() {
    let served = serve().await;
    let _ = ok(&served, "pause ../nodes/b/drain?").await;
    let asked = served.fake.asked.lock().unwrap().pop();
    assert_eq!(asked, Some(Verb::Pause { service: "../nodes/b/drain?".into() }));
}

#[tokio::test]
async fn a_code_of_another_version_is_still_a_failure() {
    let served = serve().await;
    let mut strange = fake::refusal();
    strange.code = crate::telemetry::problem::Code(9999);
    *served.fake.refuse.lock().unwrap() = Some(strange);
    let problem = refused(&served, "pause").await;
    assert_eq!((problem.exit().status(), problem.code == codes::UNEXPECTED), (1, false));
}
