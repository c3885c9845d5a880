//! `tandem doctor`.

use super::tandem;
use crate::api::tests::serve;
use crate::cli::Error;

#[tokio::test]
async fn something_bad_is_shown_and_is_a_failure() {
    let served = serve().await;
    let (page, outcome) = tandem(&served.url(), "doctor").await;
    assert!(matches!(outcome, Err(Error::Unsuccessful)), "{outcome:?}");
    assert!(page.contains("good  clock    within 3 ms of the others\n"), "{page}");
    assert!(page.contains("bad   disk     1 % free\n"), "{page}");
    assert!(page.contains("because: WAL is kept\n"), "{page}");
}

#[tokio::test]
async fn before_there_is_a_node_this_machine_is_checked() {
    let (page, outcome) = tandem("http://127.0.0.1:1", "doctor --before").await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(page.contains("warning  disk     small"), "{page}");
    let (_, outcome) = tandem("http://127.0.0.1:1", "doctor").await;
    let Err(Error::Problem(problem)) = outcome else { panic!("{outcome:?}") };
    assert!(problem.try_.contains("doctor --before"), "{problem}");
}
