//! Talks to the instance about its own sessions: ends them before a stop.
//! A fast shutdown waits for walsenders to standbys that cannot be reached (seen: 50 s), so a fence
//! ends them; a planned stop lets them deliver the shutdown checkpoint first (H38, H39).
//! Not here: the order, and the signals (driver and keeper).
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, within};
use crate::service::postgres::Postgres;
use std::time::Duration;

impl Postgres {
    /// Ends every session of a client; the daemon's own stay. Returns how many were told.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn terminate_clients(&self, deadline: Duration) -> Result<usize, Error> {
        self.terminate("backend_type = 'client backend' AND usename <> 'tandem'", deadline).await
    }

    /// Ends every walsender: no standby gets anything more from here.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn terminate_walsenders(&self, deadline: Duration) -> Result<usize, Error> {
        self.terminate("backend_type = 'walsender'", deadline).await
    }

    async fn terminate(&self, which: &str, deadline: Duration) -> Result<usize, Error> {
        within("ending sessions", deadline, async {
            let sql = format!(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE pid <> pg_backend_pid() AND {which}"
            );
            let row = self.connect().await?.one("ending sessions", &sql).await?;
            Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
        })
        .await
    }
}
