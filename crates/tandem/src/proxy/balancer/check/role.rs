//! Talks to PostgreSQL servers that something else runs, to see what they are.
//! In: a connection. Out: whether the server is what it must be.
//! It logs in, asks whether the server is in recovery, and takes leave: a reset would leave a line
//! in the server's log each time.
//! Not here: how many answers in a row count (`tandem_core`), servers that Tandem runs (`routes`).
//! Tested by: below, `tests/examples/reads.rs` with real servers.

use std::path::PathBuf;
use tokio::net::TcpStream;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// What an endpoint must be to get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A server that lets its user in.
    Any,
    /// Not in recovery: it takes writes.
    Primary,
    /// In recovery: it only reads.
    Replica,
}

/// How PostgreSQL servers are asked what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleCheck {
    /// What they must be.
    pub role: Role,
    /// Who logs in.
    pub user: String,
    /// Where.
    pub database: String,
    /// What has the password, read for each check; none: the server wants none.
    pub password_file: Option<PathBuf>,
}

/// # Errors
/// What is wrong with the server, or with the check.
pub(in crate::proxy) async fn ask(stream: TcpStream, check: &RoleCheck) -> Result<(), String> {
    let mut config = Config::new();
    config.user(&check.user).dbname(&check.database).application_name("tandem check");
    if let Some(file) = &check.password_file {
        let read = tokio::fs::read_to_string(file).await;
        let text = read.map_err(|error| format!("{}: {error}", file.display()))?;
        config.password(text.trim_end_matches(['\r', '\n']));
    }
    let (client, connection) =
        config.connect_raw(stream, NoTls).await.map_err(|error| told(&error))?;
    let asking = async {
        let answer = client.simple_query("SELECT pg_is_in_recovery()").await;
        // The connection takes leave once nobody can ask any more.
        drop(client);
        answer
    };
    let (answer, end) = futures::future::join(asking, connection).await;
    let answer = answer.map_err(|error| end.err().map_or_else(|| told(&error), |end| told(&end)));
    judged(check.role, &answer?)
}

fn judged(role: Role, answer: &[SimpleQueryMessage]) -> Result<(), String> {
    let value = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match (role, value) {
        (Role::Any, Some(_)) | (Role::Primary, Some("f")) | (Role::Replica, Some("t")) => Ok(()),
        (Role::Primary, Some("t")) => Err("it is a replica, not the primary".to_owned()),
        (Role::Replica, Some("f")) => Err("it is a primary, not a replica".to_owned()),
        (_, other) => Err(format!("it does not tell its role: {other:?}")),
    }
}

/// The server's own words where it has some.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(own) => format!("{} ({})", own.message(), own.code().code()),
        None => error.to_string(),
    }
}
