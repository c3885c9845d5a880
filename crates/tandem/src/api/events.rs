//! Talks to those who follow what happens: server-sent events with replay, or a list at once.
//! In: `Last-Event-ID` or `?since=`, the kept events and the stream of new ones. Out: each event
//! once, in order, with its number as id.
//! Queues: at most `Limits::streams_max` streams, a further one is refused; a reader that falls
//! behind the broadcast is dropped with a comment and may come back with its last number.
//! Tested by: `tests/events.rs`.

use crate::api::problem::{Answer, Rejection};
use crate::api::request::{Parameters, bad};
use crate::api::{Shared, verbs};
use crate::telemetry::events::Event;
use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, HeaderMap};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream};
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Since {
    since: Option<u64>,
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Parameters(Since { since }): Parameters<Since>,
) -> Answer<Response> {
    let wants_list = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_list {
        let events = shared.operations.events_since(since.unwrap_or(0));
        return Ok(Json(events).into_response());
    }
    // A browser that reconnects sends the header, which is newer than what the address says.
    let since = last_event_id(&headers)?.or(since);
    let Ok(place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return Err(Rejection(verbs::full("event streams", shared.limits.streams_max)));
    };
    // Subscribed before the replay is taken: nothing can fall between the two.
    let live = shared.operations.subscribe();
    let replay = since.map_or_else(Vec::new, |since| shared.operations.events_since(since));
    let follower = Follower {
        sent: 0,
        replay: replay.into(),
        live,
        stopping: shared.supervisor.stopping(),
        dropped: false,
        _place: place,
    };
    let keep_alive = KeepAlive::new().interval(shared.limits.keep_alive);
    Ok(Sse::new(follower.stream()).keep_alive(keep_alive).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| {
        bad(
            "cannot replay events",
            "Last-Event-ID is not the number of an event",
            "send the id of the last event that you saw, or leave it out",
        )
        .into()
    })
}

struct Follower {
    sent: u64,
    replay: VecDeque<Event>,
    live: broadcast::Receiver<Event>,
    stopping: CancellationToken,
    dropped: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    fn stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let message = follower.next().await?;
            Some((Ok(message), follower))
        })
    }

    async fn next(&mut self) -> Option<sse::Event> {
        if self.dropped {
            return None;
        }
        if let Some(event) = self.replay.pop_front() {
            self.sent = event.seq;
            return Some(message(&event));
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                event = self.live.recv() => event,
            };
            match event {
                Ok(event) if event.seq > self.sent => {
                    self.sent = event.seq;
                    return Some(message(&event));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    self.dropped = true;
                    let words =
                        format!("too slow by {missed} events: come back with Last-Event-ID");
                    return Some(sse::Event::default().comment(words));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn message(event: &Event) -> sse::Event {
    let message = sse::Event::default().id(event.seq.to_string()).event(event.kind.name());
    match serde_json::to_string(event) {
        Ok(json) => message.data(json),
        Err(error) => sse::Event::default().comment(format!("event {} lost: {error}", event.seq)),
    }
}
