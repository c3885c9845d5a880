//! Talks to /proc and pg_stat_activity: proof that a process of PostgreSQL has handled a signal.
//!
//! PostgreSQL's background processes say nowhere which configuration they have read. But they
//! handle a reload before they wait again: its signal sets the latch they wait on, so they cannot
//! be asleep *in that wait* with an unhandled reload. The kernel wakes a sleeping process before
//! `kill` returns. So a process that is asleep in a known wait, at a moment after the signal was
//! sent, has handled it. "Asleep at one moment, in that wait" is: the same count of voluntary
//! context switches and state S before and after the query that shows the wait.
//! Not here: that the signal was sent (`reload_until`).
//! Tested by: below, and `tests/postgres_adapter.rs`.

use super::{Error, Session};
use tokio_postgres::Row;

/// How often a process has gone to sleep, if it is asleep now.
fn sleeps(pid: i32) -> Option<u64> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    field("State").filter(|state| state.starts_with('S'))?;
    field("voluntary_ctxt_switches")?.parse().ok()
}

impl Session {
    /// The row of `sql`, if the process of that kind slept in one of `waits` the whole time it
    /// took. The row's first two columns are the process's number and its wait event.
    pub(super) async fn while_asleep(
        &mut self,
        sql: &str,
        waits: &[&str],
        pid: &mut Option<i32>,
    ) -> Result<Option<Row>, Error> {
        let before = pid.and_then(sleeps);
        let row = self
            .wire
            .drive(self.client.query_opt(sql, &[]))
            .await
            .map_err(Error::sql("asking what a process waits for"))?;
        let Some(row) = row else {
            *pid = None;
            return Ok(None);
        };
        let now: i32 = row.get(0);
        let wait: Option<&str> = row.get(1);
        let asleep = before.is_some()
            && *pid == Some(now)
            && wait.is_some_and(|wait| waits.contains(&wait))
            && sleeps(now) == before;
        *pid = Some(now);
        Ok(asleep.then_some(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_counted() {
        let status = "Name:\tpostgres\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t42\n\
                      nonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(parse(status), Some(42));
        assert_eq!(parse(&status.replace("S (sleeping)", "R (running)")), None);
        assert_eq!(parse(&status.replace("S (sleeping)", "D (disk sleep)")), None);
    }

    #[test]
    fn a_process_that_is_gone_is_not_asleep() {
        assert_eq!(sleeps(i32::MAX), None);
    }
}
