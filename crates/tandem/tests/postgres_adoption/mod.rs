//! Data that the adapter did not make, or whose record is lost: adopted, or left as it is.

use crate::postgres_cluster::{Node, SHORT, nodes, own_folder, timed};
use nix::sys::signal::Signal;
use tandem::service::postgres::copy::found::AdoptionWarning;
use tandem::service::postgres::{Error, Sentinel};
use tandem_core::facts::Data;
use tandem_core::ids::{NodeId, Term};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What somebody else made: a table, a configuration of their own, no role and no state of ours.
fn foreign(node: &Node) -> std::path::PathBuf {
    let data = node.postgres.data_dir();
    own_folder(&data);
    assert!(node.tool("initdb", &["-A", "trust", "-U", "owner", "-k", "-D"], &data));
    std::fs::write(data.join("postgresql.conf"), "work_mem = '7MB'\nport = 1\n").unwrap();
    std::fs::write(data.join("pg_hba.conf"), "host x y 10.0.0.0/8 md5\n").unwrap();
    node.single_user("CREATE TABLE theirs AS SELECT 42 AS answer");
    data
}

fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_promise_begins_no_record_over_data_that_has_none() {
    let (_dir, mut nodes) = nodes(&["a", "b"]).await;
    let [own, other] = nodes.as_mut_slice() else { panic!("two") };
    // Our own, whose state was lost: what it promised is not known.
    own.postgres.found().await.unwrap();
    std::fs::remove_file(own.postgres.state_path()).unwrap();
    // Somebody else's, where the owner did not ask for it.
    foreign(other);
    for node in [own, other] {
        let before = files(&node.postgres.data_dir());
        let promise = node.postgres.change_state(|state| state.promised = Term(5)).await;
        assert!(matches!(promise, Err(Error::StateMissing { .. })), "{promise:?}");
        let (source, token) = (NodeId::from("c-1"), CancellationToken::new());
        let copy = node.postgres.clone_from(&source, watch::channel(None).0, token);
        let refused = [
            copy.await.err(),
            node.postgres.found().await.err(),
            node.postgres.adopt().await.err(),
            node.postgres.prepare_start(None).await.err(),
            node.postgres.data().await.err(),
        ];
        for refused in refused {
            assert!(matches!(refused, Some(Error::StateMissing { .. })), "{refused:?}");
        }
        assert!(!node.postgres.state_path().exists());
        assert_eq!(files(&node.postgres.data_dir()), before);
        // Only who decided that the data may go begins a record over it.
        let state = node.postgres.begin_state(|state| state.sentinel = Some(Sentinel::Cloning));
        assert_eq!(state.await.unwrap().promised, Term(0));
        assert_eq!(node.postgres.data().await.unwrap(), Data::Mixed);
    }
}

#[tokio::test]
async fn adoption_keeps_what_is_there() {
    let (dir, mut nodes) = nodes(&["a"]).await;
    let a = &mut nodes[0];
    a.place_data(&dir.path().join("theirs"));
    let data = foreign(a);
    assert_eq!(a.postgres.data().await.unwrap(), Data::Foreign);
    let system = a.postgres.inspect_stopped().await.unwrap().system;
    // A standby lacks what its primary has.
    std::fs::write(data.join("standby.signal"), "").unwrap();
    let standby = a.postgres.adopt().await;
    assert!(matches!(standby, Err(Error::NotAPrimary { .. })), "{standby:?}");
    std::fs::remove_file(data.join("standby.signal")).unwrap();
    // It was killed with a row that is in the log only: recovered, as by its own start.
    a.run_foreign();
    a.foreign_sql("INSERT INTO theirs VALUES (43)");
    a.stop(Signal::SIGQUIT);
    // Interrupted, and begun again.
    a.postgres.begin_state(|state| state.sentinel = Some(Sentinel::Adopting)).await.unwrap();
    assert_eq!(a.postgres.data().await.unwrap(), Data::Foreign);
    let warnings = timed("adopt", a.postgres.adopt()).await.unwrap();
    assert_eq!(warnings, [AdoptionWarning::Recovered]);
    assert_eq!(a.postgres.data().await.unwrap(), Data::Present);
    let again = a.postgres.adopt().await;
    assert!(matches!(again, Err(Error::Adopted { .. })), "{again:?}");
    a.start_following(None).await;
    a.postgres.promote(SHORT).await.unwrap();
    a.postgres.ensure_roles(SHORT).await.unwrap();
    assert_eq!(a.until("it answers", |_| true).await.system, system);
    assert_eq!(a.sql("SELECT sum(answer) FROM theirs"), "85");
    assert_eq!(a.sql("SHOW work_mem"), "7MB");
    let hba = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
    assert!(hba.contains("\nhost x y 10.0.0.0/8 md5\n"), "{hba}");
}
