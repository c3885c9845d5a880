//! Talks to the instance about its own sessions: ends them before a planned stop.
//! A fast shutdown waits for every walsender to deliver the shutdown checkpoint, also for one whose
//! standby cannot be reached (seen: 50 s): only the next primary's stays (H38, H39).
//! Not here: the order, and the signals (driver and keeper).
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, within};
use crate::service::postgres::{Postgres, names};
use std::time::Duration;
use tandem_core::ids::NodeId;

/// How many were told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sessions of clients.
    pub clients: usize,
    /// Walsenders to anybody but the next primary.
    pub walsenders: usize,
}

impl Postgres {
    /// Ends every session of a client, then every walsender but the one to `next`. The daemon's own
    /// sessions stay.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn end_sessions(&self, next: &NodeId, deadline: Duration) -> Result<Ended, Error> {
        within("ending sessions", deadline, async {
            let mut session = self.connect().await?;
            let clients = ending("backend_type = 'client backend' AND usename <> 'tandem'");
            let clients = session.one("ending sessions", &clients).await?.get(0);
            let name = names::application(&self.config().cluster, next);
            let others =
                format!("backend_type = 'walsender' AND lower(application_name) <> '{name}'");
            let walsenders = session.one("ending walsenders", &ending(&others)).await?.get(0);
            let count = |number: i64| usize::try_from(number).unwrap_or(0);
            Ok(Ended { clients: count(clients), walsenders: count(walsenders) })
        })
        .await
    }
}

fn ending(which: &str) -> String {
    format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND {which}"
    )
}
