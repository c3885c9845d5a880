//! Talks to every peer: tells what this node knows of itself, hears the same of the others.
//! In: the hub. Out: the hub. One task per peer; a change is sent at once, else every 100 ms. Where
//! no lease is to be proven, a heartbeat of the peer's that was just answered told both sides all
//! there is, and one's own is left out: half of what an idle node does.
//! Keeps: INV-3 an acknowledgement counts from when its heartbeat was *sent*.

use super::hub::Hub;
use super::wire::{Beat, decode, encode};
use crate::peers::{Channel, Mesh};
use crate::runtime::clock;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Unanswered heartbeats to one peer; more are not sent.
const IN_FLIGHT_MAX: usize = 16;
/// An answer that takes longer proves nothing any more.
const DEADLINE: Duration = Duration::from_secs(1);
/// Changes are sent at most this often.
const SPACING: Duration = Duration::from_millis(2);

/// Exchanges heartbeats with one peer until `stop`.
pub async fn exchange(
    hub: Arc<Hub>,
    mesh: Mesh,
    peer: NodeId,
    every: Duration,
    stop: CancellationToken,
) {
    let mut changed = hub.own_changed();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_flight = FuturesUnordered::new();
    let mut last_sent = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(answer) = in_flight.next(), if !in_flight.is_empty() => {
                take_in(&hub, &peer, answer);
                continue;
            }
            _ = ticks.tick() => {
                let told = hub.answered_at(&peer).is_some_and(|at| clock::now().since(at) < every);
                if told && !hub.rests_on_answers() {
                    continue;
                }
            }
            Ok(()) = changed.changed() => {
                tokio::time::sleep_until(last_sent + SPACING).await;
                changed.mark_unchanged();
            }
        }
        if in_flight.len() < IN_FLIGHT_MAX {
            last_sent = Instant::now();
            in_flight.push(beat(&hub, &mesh, &peer));
        }
    }
}

/// A heartbeat's answer, and when the heartbeat was sent.
type Answer = (Timestamp, Option<Beat>);

async fn beat(hub: &Hub, mesh: &Mesh, peer: &NodeId) -> Answer {
    let sent = clock::now();
    let body = encode(&Beat { facts: hub.own() });
    let answer = mesh.request(peer, Channel::Heartbeat, body, DEADLINE).await;
    (sent, answer.ok().and_then(|body| decode::<Beat>(&body).ok()))
}

fn take_in(hub: &Hub, peer: &NodeId, (sent, answer): Answer) {
    if let Some(beat) = answer.filter(|beat| beat.facts.node == *peer) {
        hub.acknowledged(sent, beat.facts);
    }
}
