//! Settings that PostgreSQL takes and does not take, before and after a server has them.

use crate::postgres_cluster::{SHORT, nodes, timed};
use std::collections::BTreeMap;
use tandem::service::postgres::InstanceConfig;

#[tokio::test]
async fn settings_are_tried_before_a_server_has_them() {
    let (_dir, mut nodes) = nodes(&["a"]).await;
    let a = &mut nodes[0];
    let binaries = a.postgres.config().binaries.clone();
    let of = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let good = of(&[
        ("work_mem", "7MB"),
        ("search_path", "\"$user\", public"),
        ("pgaudit.log", "ddl"),
        ("archive_command", "cp %p '/a b/=%f'"),
        ("log_min_duration_statement", "-1"),
    ]);
    let taken = timed("try settings", binaries.try_settings(&good)).await.unwrap();
    assert_eq!(taken, Vec::new());
    let bad = of(&[
        ("max_conections", "5"),
        ("max_connections", "many"),
        ("work_mem", "7MB"),
        ("shared_buffers", "12"),
        ("wal_sync_method", "hope"),
        ("block_size", "3"),
    ]);
    let refused = binaries.try_settings(&bad).await.unwrap();
    let names: Vec<(&str, bool)> =
        refused.iter().map(|it| (it.name.as_str(), it.unknown)).collect();
    assert_eq!(
        names,
        [
            ("block_size", false),
            ("max_conections", true),
            ("max_connections", false),
            ("shared_buffers", false),
            ("wal_sync_method", false),
        ]
    );
    assert!(refused[4].because.contains("Available values: "), "{refused:?}");
    assert!(binaries.setting_names().await.unwrap().contains(&"max_connections".to_owned()));
    // Each is good alone, and no server starts with both.
    let both =
        of(&[("log_parser_stats", "on"), ("log_statement_stats", "on"), ("work_mem", "7MB")]);
    let refused = binaries.try_settings(&both).await.unwrap();
    let names: Vec<&str> = refused.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["log_statement_stats"], "{refused:?}");
    assert!(refused[0].because.contains("\"log_parser_stats\""), "{refused:?}");
    // What a server was given all the same is told by the reload that does not take it; what only
    // waits for a restart is no error.
    crate::found(a).await;
    let with = |pairs: &[(&str, &str)]| {
        let config = a.postgres.config().clone();
        let mut user_settings = config.user_settings.clone();
        user_settings.extend(of(pairs));
        InstanceConfig { user_settings, ..config }
    };
    let (later, wrong) = (with(&[("max_connections", "150")]), with(&[("work_men", "1MB")]));
    a.postgres.reconfigure(later).unwrap();
    a.postgres.reload(SHORT).await.unwrap();
    a.postgres.reconfigure(wrong).unwrap();
    let told = a.postgres.reload(SHORT).await.unwrap_err().to_string();
    assert!(told.contains("unrecognized configuration parameter: work_men ("), "{told}");
}
