//! Talks SQL to the instance over its unix socket, as the daemon's own role.
//! In: a query and a deadline. Out: rows, or an `Error` that tells down, starting, full and hung
//! apart.
//! A connection is driven by whoever waits for an answer on it: there is no task behind it.
//! Tested by: `tests/postgres_adapter.rs`.

pub mod asleep;
pub mod audit;
pub mod observe;
pub mod promote;
pub mod receiver;
pub mod roles;
pub mod rule;
pub mod sessions;
pub mod slots;

use super::{Error, Postgres, REPLICATION_ROLE, SUPERUSER};
use futures::stream::{BoxStream, StreamExt as _, poll_fn};
use std::future::Future;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::lsn::Lsn;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row};

/// Between two looks at something that takes a few milliseconds.
const POLL: Duration = Duration::from_millis(3);

/// The answer must not hang on what the owner set for roles or databases; names are looked up in
/// pg_catalog only, so that nobody's table stands in for ours.
const OPTIONS: &str = "-c search_path=pg_catalog -c synchronous_commit=on \
    -c default_transaction_read_only=off -c lock_timeout=0 -c client_min_messages=warning \
    -c statement_timeout=0 -c idle_session_timeout=0 -c bytea_output=hex";

/// One connection.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) wire: Wire,
}

/// The receiving half of a connection.
pub(super) struct Wire {
    messages: BoxStream<'static, Result<AsyncMessage, tokio_postgres::Error>>,
}

impl Wire {
    /// Drives the connection until `answer` is there.
    pub(super) async fn drive<T>(
        &mut self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                result = &mut answer => return result,
                message = self.messages.next() => match message {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    // The connection ended: the answer says so by itself.
                    None => return answer.await,
                },
            }
        }
    }
}

impl Session {
    pub(super) async fn one(&mut self, doing: &'static str, sql: &str) -> Result<Row, Error> {
        self.wire.drive(self.client.query_one(sql, &[])).await.map_err(Error::sql(doing))
    }

    pub(super) async fn all(&mut self, doing: &'static str, sql: &str) -> Result<Vec<Row>, Error> {
        self.wire.drive(self.client.query(sql, &[])).await.map_err(Error::sql(doing))
    }

    pub(super) async fn run(&mut self, doing: &'static str, sql: &str) -> Result<(), Error> {
        self.wire.drive(self.client.batch_execute(sql)).await.map_err(Error::sql(doing))
    }

    /// A setting as this session sees it.
    pub(super) async fn show(&mut self, name: &'static str) -> Result<String, Error> {
        let row = self.one("reading a setting", &format!("SHOW {name}")).await?;
        Ok(row.get(0))
    }

    pub(super) async fn in_recovery(&mut self) -> Result<bool, Error> {
        Ok(self.one("asking for the role", "SELECT pg_is_in_recovery()").await?.get(0))
    }
}

/// Runs to a deadline; a connection that is in the middle of something is dropped with the future.
pub(super) async fn within<T>(
    doing: &'static str,
    deadline: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout_at(Instant::now() + deadline, work)
        .await
        .unwrap_or(Err(Error::Timeout { doing, after: deadline }))
}

/// A position out of a column of text.
pub(super) fn lsn(row: &Row, column: usize) -> Result<Lsn, Error> {
    let text: Option<&str> = row.get(column);
    text.map_or(Ok(Lsn::ZERO), str::parse)
        .map_err(|_| Error::Answer { doing: "reading a position", answer: format!("{text:?}") })
}

impl Postgres {
    /// A new connection over the unix socket.
    pub(super) async fn connect(&self) -> Result<Session, Error> {
        self.connect_to("postgres").await
    }

    pub(super) async fn connect_to(&self, database: &str) -> Result<Session, Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.run_dir())
            .port(self.config().port)
            .user(SUPERUSER)
            .password(&self.config().passwords.superuser)
            .dbname(database)
            .application_name("tandem")
            .options(OPTIONS);
        open(&config).await
    }

    /// A connection to another member, as the replication role.
    pub(super) async fn connect_peer(&self, node: &NodeId) -> Result<Session, Error> {
        let address =
            self.config().peers.get(node).ok_or_else(|| Error::NoAddress { node: node.clone() })?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .user(REPLICATION_ROLE)
            .password(&self.config().passwords.replication)
            .dbname("postgres")
            .application_name("tandem")
            .connect_timeout(Duration::from_secs(2));
        open(&config).await
    }

    /// Asks the postmaster to read its files, and returns once it has signalled all its children.
    ///
    /// A backend that shows the new value proves only that it was signalled itself. The postmaster
    /// does one thing at a time: a connection that was *opened* with the new value was forked after
    /// the reload, so every signal of it had been sent by then.
    pub(super) async fn reload_until(
        &self,
        name: &'static str,
        value: &str,
    ) -> Result<Session, Error> {
        let mut old = self.connect().await?;
        old.run("asking for a reload", "SELECT pg_reload_conf()").await?;
        while old.show(name).await? != value {
            sleep(POLL).await;
        }
        loop {
            let mut new = self.connect().await?;
            if new.show(name).await? == value {
                return Ok(new);
            }
            sleep(POLL).await;
        }
    }

    /// Makes the server read its files; what needs a restart shows as `pending_restart`.
    ///
    /// # Errors
    /// `NotLoaded` where it does not take what is in them; those of files and of a connection.
    pub async fn reload(&self, deadline: Duration) -> Result<(), Error> {
        within("reloading", deadline, async {
            self.write_settings().await?;
            let mut session = self.connect().await?;
            session.run("asking for a reload", "SELECT pg_reload_conf()").await?;
            match file_errors(&mut session).await? {
                errors if errors.is_empty() => Ok(()),
                errors => Err(Error::NotLoaded { errors: errors.join("; ") }),
            }
        })
        .await
    }

    /// What the server does not take of its files, in its words.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn not_loaded(&self, deadline: Duration) -> Result<Vec<String>, Error> {
        within("reading the files' errors", deadline, async {
            file_errors(&mut self.connect().await?).await
        })
        .await
    }
}

/// The view reads the files anew, and tells of a setting that waits for a restart as of one whose
/// value is wrong; which of them wait, the session knows from then on.
const FILE_ERRORS: &str = "SELECT name::text, \
    coalesce(error || coalesce(': ' || name, ''), '')::text, \
    coalesce(sourcefile, '')::text, coalesce(sourceline, 0) \
    FROM pg_file_settings WHERE error IS NOT NULL ORDER BY seqno";
const WAITING: &str = "SELECT name::text FROM pg_settings WHERE pending_restart";

async fn file_errors(session: &mut Session) -> Result<Vec<String>, Error> {
    let errors = session.all("reading the files' errors", FILE_ERRORS).await?;
    if errors.is_empty() {
        return Ok(Vec::new());
    }
    let waiting = session.all("reading what waits", WAITING).await?;
    let waits = |name: &str| waiting.iter().any(|row| name.eq_ignore_ascii_case(row.get(0)));
    let wrong = errors.iter().filter(|row| !row.get::<_, Option<&str>>(0).is_some_and(waits));
    let tell = |row: &Row| -> String {
        let (what, file, line) = (row.get::<_, &str>(1), row.get::<_, &str>(2), row.get(3));
        let line: i32 = line;
        format!("{what} ({file} line {line})")
    };
    Ok(wrong.map(tell).collect())
}

async fn open(config: &tokio_postgres::Config) -> Result<Session, Error> {
    let (client, mut connection) = config.connect(NoTls).await.map_err(Error::sql("connecting"))?;
    let messages = poll_fn(move |context| connection.poll_message(context)).boxed();
    Ok(Session { client, wire: Wire { messages } })
}
