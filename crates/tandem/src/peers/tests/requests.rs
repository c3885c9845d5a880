//! What is asked and answered.

use super::*;

#[tokio::test]
async fn each_of_three_answers_each() {
    let cluster = Cluster::connected(["a", "b", "c"]).await;
    for from in ["a", "b", "c"] {
        for to in ["a", "b", "c"] {
            let answer = cluster[from].ask(to, "hello").await;
            if from == to {
                assert!(matches!(answer, Err(Error::UnknownPeer { .. })));
            } else {
                assert_eq!(answer.unwrap(), format!("{to} to {from} Operate hello"));
            }
        }
    }
    let now = clock::now();
    let heard = cluster["a"].mesh.last_heard(&"b".into()).unwrap();
    assert!(now.since(heard) < LIMIT);
    cluster["a"].ask("b", "again").await.unwrap();
    assert!(cluster["a"].mesh.last_heard(&"b".into()).unwrap() > heard);
    assert_eq!(cluster["a"].mesh.last_heard(&"x".into()), None);
}

#[tokio::test]
async fn a_handlers_refusal_arrives_as_it_was_said() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let error = cluster["a"].ask("b", "fail").await.unwrap_err();
    assert_eq!(error.to_string(), "b refused: as you wish");
    let error = cluster["a"].ask("b", "too much").await.unwrap_err();
    assert!(
        matches!(&error, Error::Failed { message, .. } if message.contains("limit")),
        "{error}"
    );
    let body = Bytes::from(vec![0; BODY_BYTES_MAX + 1]);
    let error =
        cluster["a"].mesh.request(&"b".into(), Channel::Raft, body, SOON).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    cluster["a"].ask("b", "fine").await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_one_request_only() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let (mesh, to) = (&cluster["a"].mesh, "b".into());
    let short = Duration::from_millis(50);
    let hang = mesh.request(&to, Channel::Raft, Bytes::from("hang"), short);
    let (hang, fine) = tokio::join!(hang, cluster["a"].ask("b", "fine"));
    assert!(matches!(hang, Err(Error::Deadline { after, .. }) if after == short));
    fine.unwrap();
    assert_eq!(mesh.link(&to), LinkState::Connected);
}

#[tokio::test]
async fn full_size_goes_both_ways_and_heartbeats_overtake_it() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let (mesh, to) = (&cluster["a"].mesh, "b".into());
    let large = Bytes::from(vec![7; BODY_BYTES_MAX]);
    let large = mesh.request(&to, Channel::Raft, large, LIMIT);
    let beat = mesh.request(&to, Channel::Heartbeat, Bytes::from("beat"), LIMIT);
    let (large, beat) = tokio::join!(large, beat);
    assert_eq!(large.unwrap(), BODY_BYTES_MAX.to_string());
    assert_eq!(beat.unwrap(), "b to a Heartbeat beat");
}

#[tokio::test]
async fn too_many_requests_are_answered_busy() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let (mesh, to) = (&cluster["a"].mesh, NodeId::from("b"));
    let hang = || mesh.request(&to, Channel::Raft, Bytes::from("hang"), SOON);
    let answers = futures::future::join_all((0..=served::REQUESTS_MAX).map(|_| hang())).await;
    let busy = answers.iter().filter(|answer| matches!(answer, Err(Error::Busy { .. }))).count();
    let hung = answers.iter().filter(|a| matches!(a, Err(Error::Deadline { .. }))).count();
    assert_eq!((hung, busy), (served::REQUESTS_MAX, 1));
    assert_eq!(mesh.link(&to), LinkState::Connected);
}

#[tokio::test]
async fn requests_fail_at_once_when_the_peer_dies() {
    let mut cluster = Cluster::connected(["a", "b"]).await;
    let b = cluster.nodes.remove("b").unwrap();
    let a = &cluster["a"];
    let (since, to) = (Instant::now(), "b".into());
    let hang = a.mesh.request(&to, Channel::Raft, Bytes::from("hang"), LIMIT);
    let stop = async { b.supervisor.stopping().cancel() };
    let (hang, ()) = tokio::join!(hang, stop);
    assert!(matches!(hang, Err(Error::Disconnected { .. })), "{hang:?}");
    assert!(since.elapsed() < SOON);
    let later = a.ask("b", "anyone?").await;
    assert!(matches!(later, Err(Error::Disconnected { .. })), "{later:?}");
}
