//! Talks to one client from its first byte to its last.
//! In: an accepted connection. Out: nothing; the client got what it asked for, or was told why not.
//! States: Startup → Cancel | Refused | Held → Relayed → Ended.
//! Keeps: a client is never left waiting in silence; H11 and H43, what may have been executed is
//! said to be unknown (40003), what was not is said to be safe to repeat.
//! Not here: holding (`hold.rs`), copying (`relay.rs`).
//! Tested by: `tests/`.

use super::hold::{self, Unrouted};
use super::listener::{Shared, Slot};
use super::pgwire::durability::{self, Lowered, Setting};
use super::pgwire::scan::Scan;
use super::pgwire::startup::{self, Request, Startup};
use super::registry::Cut;
use super::relay::{End, Relay, Upstream};
use super::sqlstate::{Fatal, SqlState};
use super::{cancel, connect};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client that stays silent is probed after this long.
const CLIENT_IDLE: Duration = Duration::from_secs(60);

/// Serves one connection.
pub(super) async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    connect::tune(&client, CLIENT_IDLE);
    let startup = timeout(shared.limits.startup, startup::read(&mut client));
    let request = tokio::select! {
        () = shared.closing.cancelled() => return,
        request = startup => request,
    };
    match request {
        Ok(Ok(Request::Session(startup))) => session(&shared, client, startup).await,
        Ok(Ok(Request::Cancel(request))) => cancel::forward(&shared, &request).await,
        Ok(Err(startup::Error::Io(_))) => {}
        Ok(Err(error)) => {
            shared.tally.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(service = %shared.config.service, %error, "client turned away");
            if let Some(fatal) = unreadable(&error) {
                farewell(&shared, &mut client, &fatal).await;
            }
        }
        // As PostgreSQL does: who says nothing is told nothing.
        Err(_) => {
            shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn session(shared: &Arc<Shared>, mut client: TcpStream, startup: Startup) {
    let Some(_slot) = Slot::take(&shared.tally.sessions, shared.config.sessions_max) else {
        return refuse(shared, &mut client, &too_many(shared)).await;
    };
    if let Some(fatal) = lower_durability(shared, &startup) {
        return refuse(shared, &mut client, &fatal).await;
    }
    let mut early = Vec::new();
    let routed = match hold::route(shared, &mut client, &startup.packet, &mut early).await {
        Ok(routed) => routed,
        Err(Unrouted::Gone) => return,
        Err(Unrouted::Refused(fatal)) => return farewell(shared, &mut client, &fatal).await,
    };
    drop(startup);
    shared.tally.routed.fetch_add(1, Ordering::Relaxed);
    let node = routed.lease.entry.claim.target.node.clone();
    let service = &shared.config.service;
    let refuses = shared.config.refuse_lower_durability;
    let scan = if refuses { Scan::refusing() } else { Scan::counting() };
    let up = Upstream { early, scan, linger: shared.limits.linger };
    let mut relay = match Relay::new(client, routed, up) {
        Ok(relay) => relay,
        Err(violation) => {
            return tracing::warn!(%service, %node, %violation, "not a PostgreSQL server");
        }
    };
    let end = relay.run().await;
    if let End::Violation(violation) = &end {
        tracing::warn!(%service, %node, %violation, "not a PostgreSQL server; session closed");
    }
    if matches!(end, End::LocalCommit) {
        shared.tally.local_commits.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%service, %node, "no standby confirmed a commit; the client was told");
    }
    if let End::Refused(lowered) = &end {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%service, setting = lowered.setting.name, "a statement was refused");
    }
    if let Some(fatal) = last_words(shared, &relay, &end) {
        farewell(shared, &mut relay.client, &fatal).await;
    }
}

async fn refuse(shared: &Shared, client: &mut TcpStream, fatal: &Fatal) {
    shared.tally.refused.fetch_add(1, Ordering::Relaxed);
    farewell(shared, client, fatal).await;
}

/// Sends the last message and waits a moment for the client to close: closing first, with bytes
/// of the client unread, would reset the connection and could take the message along.
async fn farewell(shared: &Shared, client: &mut TcpStream, fatal: &Fatal) {
    let say = async {
        client.write_all(&fatal.encode()).await?;
        client.shutdown().await?;
        let mut rest = [0; 256];
        while client.read(&mut rest).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Either it went well, or the client is gone or slow: in all cases it is over.
    let _ = timeout(shared.limits.farewell, say).await;
}

fn unreadable(error: &startup::Error) -> Option<Fatal> {
    let state = match error {
        startup::Error::Version { .. } => SqlState::FeatureNotSupported,
        startup::Error::Malformed | startup::Error::Negotiation => SqlState::ProtocolViolation,
        // Not PostgreSQL: an answer would only confuse it.
        startup::Error::Length(_) | startup::Error::Io(_) => return None,
    };
    Some(Fatal {
        state,
        message: error.to_string(),
        detail: "The door speaks PostgreSQL's protocol 3.".into(),
        hint: "Use a current driver.".into(),
    })
}

fn too_many(shared: &Shared) -> Fatal {
    let service = &shared.config.service;
    Fatal {
        state: SqlState::TooManyConnections,
        message: format!("service {service} has too many sessions at this node"),
        detail: format!("The limit is {}.", shared.config.sessions_max),
        hint: "Close idle sessions, use a smaller pool, or connect to another node.".into(),
    }
}

/// H13: a commit that waits for less could be acknowledged and then lost; H11: one whose wait was
/// cancelled is told from a success by its warning only.
fn lower_durability(shared: &Shared, startup: &Startup) -> Option<Fatal> {
    if !shared.config.refuse_lower_durability {
        return None;
    }
    let lowered = durability::lowered(startup.parameters())?;
    let what = "it from the connection's parameters and options";
    Some(not_allowed(shared, &lowered, MAY_NOT_LOWER.into(), what))
}

/// Nothing is in flight. `what` is what may be removed.
fn not_allowed(shared: &Shared, lowered: &Lowered, detail: String, what: &str) -> Fatal {
    let Setting { name, advice, .. } = lowered.setting;
    Fatal {
        state: SqlState::InvalidParameterValue,
        message: format!("service {} does not allow {lowered}", shared.config.service),
        detail,
        hint: format!("Set {name} to {advice}, or remove {what}.").into(),
    }
}

const MAY_NOT_LOWER: &str = "Its commits are acknowledged only once standbys have them; a session \
                             may not ask for less, nor hide the warning that one is not.";

/// The same within a session. Nothing of the statement was executed; what was sent before it may
/// have been, without an answer.
fn statement_refused(shared: &Shared, lowered: &Lowered, nothing_in_flight: bool) -> Fatal {
    let service = &shared.config.service;
    if nothing_in_flight {
        let detail = format!(
            "{MAY_NOT_LOWER} The statement was not executed; an open transaction is rolled back."
        );
        return not_allowed(shared, lowered, detail, "the statement");
    }
    Fatal {
        state: SqlState::StatementCompletionUnknown,
        message: format!(
            "service {service} does not allow {lowered}; outcome of earlier statements unknown"
        ),
        detail: format!(
            "{MAY_NOT_LOWER} The statement was not executed. Statements that were sent before it \
             have no answer yet."
        ),
        hint: "Remove the statement; check whether the changes before it are there before \
               repeating them."
            .into(),
    }
}

/// What the client is told after the relay's end; nothing where it would not be read as a message.
fn last_words(shared: &Shared, relay: &Relay, end: &End) -> Option<Fatal> {
    let walker = relay.walker();
    if !relay.at_boundary() {
        return None;
    }
    match end {
        End::ClientLeft | End::Violation(_) => None,
        End::Refused(lowered) => Some(statement_refused(shared, lowered, relay.is_settled())),
        End::LocalCommit => Some(Fatal {
            state: SqlState::StatementCompletionUnknown,
            message: "commit outcome unknown".into(),
            detail: "The wait for the standbys was cancelled: the commit is on the primary alone, \
                     and a failover may undo it."
                .into(),
            hint: "Reconnect and check whether the change is there before repeating it.".into(),
        }),
        End::ServerLeft | End::Cut(_) if !relay.client_stays() => None,
        // The server's own last message says it better.
        End::ServerLeft if walker.ended_in_error() => None,
        End::ServerLeft => Some(ended(
            shared,
            "the server closed the connection",
            relay.is_settled() || !walker.is_ready(),
        )),
        End::Cut(_) if !walker.is_ready() => None,
        End::Cut(cut) => {
            let because = match cut {
                Cut::Moved => "the primary moved",
                Cut::NotHeard => "this node has lost contact with the cluster",
                Cut::ReplicaGone => "the replica left the cluster",
                Cut::Closing => "the door is closing",
            };
            Some(ended(shared, because, relay.is_settled()))
        }
    }
}

fn ended(shared: &Shared, because: &str, nothing_in_flight: bool) -> Fatal {
    let service = &shared.config.service;
    if nothing_in_flight {
        return Fatal {
            state: SqlState::AdminShutdown,
            message: format!("terminating connection because {because}; reconnect"),
            detail: format!("No statement was in flight. Service {service}."),
            hint: "Reconnect: the door holds new sessions until there is a primary. An open \
                   transaction is rolled back."
                .into(),
        };
    }
    Fatal {
        state: SqlState::StatementCompletionUnknown,
        message: format!("terminating connection because {because}; statement outcome unknown"),
        detail: format!(
            "A statement was in flight. If it committed, the commit may or may not have survived. \
             Service {service}."
        ),
        hint: "Reconnect and check whether the change is there before repeating it.".into(),
    }
}
