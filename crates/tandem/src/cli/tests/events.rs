//! `tandem events`.

use super::{ok, words};
use crate::api::tests::{PATIENCE, serve};
use crate::cli::client::Client;
use crate::cli::terminal::tests::Paper;
use crate::cli::{Arguments, dispatch};
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use clap::Parser as _;
use tandem_core::ids::Term;

fn promoted(term: u64) -> Draft {
    Draft::new(EventKind::PrimaryPromoted, "b is primary")
        .service(&"orders".into())
        .term(Term(term))
        .field("lsn", "0/3000060")
}

#[tokio::test]
async fn one_line_per_event() {
    let served = serve().await;
    served.fake.log.record(promoted(5));
    served.fake.log.record(Draft::new(EventKind::NodeSilent, "b is silent"));
    let page = ok(&served, "events").await;
    let lines: Vec<&str> = page.lines().collect();
    assert!(lines[0].contains("Z  a  primary.promoted"), "{page}");
    assert!(lines[0].ends_with("  orders/5: b is primary  lsn=0/3000060"), "{page}");
    assert_eq!(lines.len(), 2);
    assert_eq!(ok(&served, "events --service orders --json").await.lines().count(), 1);
}

#[tokio::test]
async fn following_shows_what_is_kept_and_what_comes() {
    let served = serve().await;
    served.fake.log.record(promoted(5));
    let paper = Paper::default();
    let mut terminal = paper.terminal(true);
    let Arguments { command, .. } = Arguments::try_parse_from(words("events --follow")).unwrap();
    let client = Client::new(&[served.url()]).unwrap();
    let entry = super::Remembers::default();
    let seen = |count: usize| {
        let paper = paper.clone();
        async move {
            while paper.text().lines().count() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    let story = async {
        seen(1).await;
        served.fake.log.record(promoted(6));
        seen(2).await;
    };
    tokio::select! {
        outcome = dispatch(command, &client, &mut terminal, &entry) => panic!("{outcome:?}"),
        told = tokio::time::timeout(PATIENCE, story) => told.unwrap(),
    }
    let terms: Vec<u64> = paper
        .text()
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["term"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(terms, [5, 6]);
}
