//! Talks to a primary: makes the roles, the application's database and our own schema.
//! Passwords are sent as SCRAM verifiers, so the server's log never sees one. Nothing waits for
//! standbys: this runs before the commit quorum is known to be complete.
//! Keeps: INV-6, it may be repeated.
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, Session, within};
use crate::service::postgres::{APP_ROLE, Postgres, REPLICATION_ROLE, SUPERUSER};
use postgres_protocol::password::scram_sha_256;
use std::time::Duration;

const SCHEMA: &str = "
CREATE SCHEMA IF NOT EXISTS tandem;
CREATE TABLE IF NOT EXISTS tandem.history (
  term bigint PRIMARY KEY,
  node text NOT NULL,
  timeline int NOT NULL,
  lsn pg_lsn NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);";

/// What pg_rewind reads with, so that it needs no superuser.
const FUNCTIONS: &[&str] = &[
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Postgres {
    /// Makes what is missing, and sets passwords that changed.
    ///
    /// # Errors
    /// `Role` on a standby, `Timeout`, `Sql`.
    pub async fn ensure_roles(&self, deadline: Duration) -> Result<(), Error> {
        within("making the roles", deadline, async {
            let mut session = self.connect().await?;
            if session.in_recovery().await? {
                return Err(Error::Role { expected: "primary" });
            }
            session.run("preparing", "SET synchronous_commit = local").await?;
            let passwords = &self.config().passwords;
            ensure_role(&mut session, SUPERUSER, "SUPERUSER", &passwords.superuser).await?;
            ensure_role(&mut session, REPLICATION_ROLE, "REPLICATION", &passwords.replication)
                .await?;
            ensure_role(&mut session, APP_ROLE, "", &passwords.app).await?;
            session.run("making the schema", SCHEMA).await?;
            grant(&mut session).await?;
            let sql = format!("SELECT FROM pg_database WHERE datname = '{APP_ROLE}'");
            if session.all("reading databases", &sql).await?.is_empty() {
                let sql = format!("CREATE DATABASE {APP_ROLE} OWNER {APP_ROLE}");
                session.run("making the database", &sql).await?;
            }
            Ok(())
        })
        .await
    }
}

/// A verifier has a random salt, so it cannot be compared: a comment remembers which password it
/// was made of, as a hash of what is random enough not to be guessed.
async fn ensure_role(
    session: &mut Session,
    role: &str,
    attributes: &str,
    password: &str,
) -> Result<(), Error> {
    let mark = blake3::hash(format!("tandem role {role} {password}").as_bytes()).to_hex();
    let mark = format!("managed by tandem, password {}", &mark[..16]);
    let sql = format!(
        "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles \
         WHERE rolname = '{role}'"
    );
    let rows = session.all("reading roles", &sql).await?;
    if rows.first().is_some_and(|row| row.get::<_, &str>(0) == mark) {
        return Ok(());
    }
    let verb = if rows.is_empty() { "CREATE" } else { "ALTER" };
    let verifier = scram_sha_256(password.as_bytes());
    let sql = format!(
        "BEGIN; {verb} ROLE {role} LOGIN {attributes} PASSWORD '{verifier}'; \
         COMMENT ON ROLE {role} IS '{mark}'; COMMIT"
    );
    session.run("making a role", &sql).await
}

async fn grant(session: &mut Session) -> Result<(), Error> {
    let has: Vec<String> = FUNCTIONS
        .iter()
        .map(|name| format!("has_function_privilege('{REPLICATION_ROLE}', '{name}', 'EXECUTE')"))
        .collect();
    let sql = format!("SELECT {}", has.join(" AND "));
    if session.one("reading grants", &sql).await?.get(0) {
        return Ok(());
    }
    let sql = format!("GRANT EXECUTE ON FUNCTION {} TO {REPLICATION_ROLE}", FUNCTIONS.join(", "));
    session.run("granting", &sql).await
}
