//! What the audit says of a server whose owner weakened it, and what it lets pass.

use crate::postgres_cluster::{Node, SHORT};
use tandem::service::postgres::Finding;

pub async fn finds_what_a_failover_loses(a: &Node) {
    a.sql("ALTER ROLE app SET synchronous_commit = 'local'");
    a.sql("ALTER DATABASE postgres SET client_min_messages = 'error'");
    a.sql("ALTER ROLE app IN DATABASE postgres SET synchronous_commit = 'remote_apply'");
    a.sql("ALTER ROLE app IN DATABASE postgres SET client_min_messages = 'Warning'");
    // H13: what a function does is not in what a client sends.
    for (name, what) in [
        ("weak_by_setting", "SET synchronous_commit = off AS 'BEGIN END'"),
        ("weak_by_body", "AS 'BEGIN SET LOCAL synchronous_commit TO ''off''; END'"),
        (
            "weak_by_call",
            "AS 'BEGIN PERFORM set_config(''client_min_messages'', ''error'', true);END'",
        ),
        ("weak_by_synonym", "AS 'BEGIN set session synchronous_commit = NO; END'"),
        ("weak_by_unknown", "AS 'BEGIN SET LOCAL synchronous_commit = quorum; END'"),
        (
            "not_weak_by_body",
            "AS 'BEGIN SET LOCAL synchronous_commit TO ''remote_apply''; \
             SET synchronous_commit = DEFAULT; \
             PERFORM set_config(''client_min_messages'', ''notice'', true); \
             PERFORM set_config(''client_min_messages'', _before, true); END'",
        ),
        ("not_weak", "SET synchronous_commit = on AS 'BEGIN SET client_min_messages = log; END'"),
    ] {
        a.sql(&format!("CREATE FUNCTION public.{name}() RETURNS void LANGUAGE plpgsql {what}"));
    }
    a.sql("CREATE UNLOGGED TABLE fleeting ()");
    let findings = a.postgres.audit(SHORT).await.unwrap();
    // H11: who does not see the warning takes a cancelled wait for a success.
    let weak: Vec<_> = findings
        .iter()
        .filter_map(|f| match f {
            Finding::WeakCommit { role, database, setting, value } => {
                Some([role.as_str(), database, setting, value])
            }
            _ => None,
        })
        .collect();
    assert_eq!(weak.len(), 2, "{findings:?}");
    assert!(weak.contains(&["app", "", "synchronous_commit", "local"]), "{findings:?}");
    assert!(weak.contains(&["", "postgres", "client_min_messages", "error"]), "{findings:?}");
    let functions: Vec<_> = findings
        .iter()
        .filter_map(|f| match f {
            Finding::WeakFunction { function, .. } => Some(function.as_str()),
            _ => None,
        })
        .collect();
    let weak = ["body", "call", "setting", "synonym", "unknown"];
    let weak = weak.map(|by| format!("public.weak_by_{by}"));
    assert_eq!(functions, weak, "{findings:?}");
    a.sql("ALTER DATABASE postgres RESET client_min_messages");
    let unlogged = Finding::UnloggedTables { database: "postgres".into(), count: 1 };
    assert!(findings.contains(&unlogged), "{findings:?}");
}
