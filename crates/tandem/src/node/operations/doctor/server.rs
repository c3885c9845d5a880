//! Talks about one PostgreSQL server: what it says of itself, and what an audit of it finds.
//! In: its adapter. Out: `Finding`s.
//! Not here: the node around it (`doctor.rs`).

use crate::api::explain::{Finding, Severity};
use crate::service::postgres::{self, Postgres};
use std::time::Duration;
use tandem_core::facts::Process;

const LOOK: Duration = Duration::from_secs(1);
const AUDIT: Duration = Duration::from_secs(5);

/// What the server itself says.
pub(super) async fn instance(subject: &str, postgres: &Postgres, process: Process) -> Vec<Finding> {
    let mut findings = Vec::new();
    match postgres.observer().observe(LOOK).await {
        Ok(seen) => {
            for node in &seen.duplicates {
                let what = format!("more than one standby is connected as {node}");
                findings.push(Finding::new(Severity::Bad, subject, what).advice(
                    "each would count as the other's confirmation",
                    "stop the one that is not of this cluster",
                ));
            }
            if seen.replay_paused {
                findings.push(Finding::new(Severity::Warning, subject, "replay is paused").advice(
                    "somebody called pg_wal_replay_pause()",
                    "SELECT pg_wal_replay_resume()",
                ));
            }
            if seen.pending_restart {
                findings.push(
                    Finding::new(Severity::Warning, subject, "settings wait for a restart")
                        .advice("they cannot change while it runs", "tandem restart"),
                );
            }
        }
        Err(error) => findings.push(
            Finding::new(Severity::Bad, subject, "it does not answer")
                .advice(error.to_string(), "see postgres.log in its folder"),
        ),
    }
    match postgres.not_loaded(LOOK).await {
        Ok(errors) => findings.extend(errors.into_iter().map(|error| {
            Finding::new(Severity::Bad, subject, "it does not take all of its settings").advice(
                error,
                "correct the setting: tandem config apply, or ALTER SYSTEM RESET if it is in \
                 postgresql.auto.conf",
            )
        })),
        // That it does not answer is said above.
        Err(error) => tracing::debug!(%error, "the files' errors are not known"),
    }
    if process == Process::Primary {
        match postgres.audit(AUDIT).await {
            Ok(found) => findings.extend(found.into_iter().map(|it| audited(subject, it))),
            Err(error) => findings.push(
                Finding::new(Severity::Warning, subject, "it could not be audited")
                    .advice(error.to_string(), "try again"),
            ),
        }
    }
    findings
}

/// A server that ends before it answers; its log says why.
pub(super) async fn not_started(subject: &str, postgres: &Postgres, starts: u32) -> Finding {
    let what = format!("its server ended {starts} times in a row before it answered");
    let path = postgres.log_file();
    let because = match postgres.last_words().await {
        Ok(Some(words)) => words,
        Ok(None) => "its log does not say why".to_owned(),
        Err(error) => error.to_string(),
    };
    let advice = format!("mend what it complains about; see {}", path.display());
    Finding::new(Severity::Bad, subject, what).advice(because, advice)
}

fn audited(subject: &str, found: postgres::Finding) -> Finding {
    let warning = |what: String| Finding::new(Severity::Warning, subject, what);
    match found {
        postgres::Finding::WeakCommit { role, database, setting, value } => {
            let role = if role.is_empty() { "every role".to_owned() } else { role };
            let database = if database.is_empty() { "every database".to_owned() } else { database };
            warning(format!("{setting} is {value} for {role} in {database}")).advice(
                "commits of these sessions are taken for acknowledged before a standby has them",
                format!("ALTER ROLE … RESET {setting} (or ALTER DATABASE …)"),
            )
        }
        postgres::Finding::WeakFunction { database, function, setting } => {
            warning(format!("function {function} in {database} lowers {setting}")).advice(
                "a commit after its call may be taken for acknowledged before a standby has it",
                format!("remove {setting} from it, or ALTER FUNCTION … RESET {setting}"),
            )
        }
        postgres::Finding::UnloggedTables { database, count } => {
            warning(format!("{count} unlogged tables in {database}"))
                .advice("a failover empties them", "ALTER TABLE … SET LOGGED what must stay")
        }
        postgres::Finding::PreparedTransactions { database, count } => {
            warning(format!("{count} prepared transactions in {database}")).advice(
                "they hold locks until somebody ends them, also after a failover",
                "COMMIT PREPARED or ROLLBACK PREPARED those that were forgotten",
            )
        }
        postgres::Finding::LogicalSlot { name } => warning(format!("logical slot {name}")).advice(
            "it stays behind at a failover before PostgreSQL 17",
            "make it anew after a failover, or use failover slots",
        ),
        postgres::Finding::NoChecksums => warning("data checksums are off".to_owned()).advice(
            "damage on disk goes unnoticed, and is copied",
            "pg_checksums --enable while the service is stopped",
        ),
    }
}
