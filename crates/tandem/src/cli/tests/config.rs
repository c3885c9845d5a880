//! `tandem config`.

use super::{ok, refused};
use crate::api::operations::Verb;
use crate::api::tests::serve;
use crate::telemetry::codes;
use tandem_core::ids::ConfigVersion;

#[tokio::test]
async fn a_file_is_applied_on_the_version_that_was_running() {
    let served = serve().await;
    assert_eq!(ok(&served, "config show --running").await, "cluster = \"shop\"\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem.toml");
    std::fs::write(&file, "cluster = \"new\"").unwrap();
    let _ = ok(&served, &format!("config apply {}", file.display())).await;
    let asked = served.fake.asked.lock().unwrap().pop();
    let text = "cluster = \"new\"".to_owned();
    assert_eq!(asked, Some(Verb::ApplyConfig { text, expected: Some(ConfigVersion(3)) }));
    let _ = ok(&served, &format!("config apply {} --expect 2", file.display())).await;
    let asked = served.fake.asked.lock().unwrap().pop();
    assert!(matches!(asked, Some(Verb::ApplyConfig { expected: Some(ConfigVersion(2)), .. })));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let served = serve().await;
    let problem = refused(&served, "config check /nowhere/tandem.toml").await;
    assert_eq!(problem.code, codes::CANNOT_READ_FILE);
    assert!(problem.what.contains("/nowhere/tandem.toml"), "{problem}");
}

#[tokio::test]
async fn a_file_in_another_encoding_is_told_where() {
    let served = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem.toml");
    std::fs::write(&file, b"cluster = \"shop\"\n# caf\xe9\n").unwrap();
    for verb in ["check", "apply", "show"] {
        let problem = refused(&served, &format!("config {verb} {}", file.display())).await;
        assert_eq!(problem.code, codes::CANNOT_READ_FILE);
        assert!(problem.because.contains("line 2, byte 6"), "{problem}");
        assert!(problem.try_.contains("UTF-8"), "{problem}");
    }
}
