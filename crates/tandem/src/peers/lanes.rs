//! Talks to one connection's sending side: a queue per channel, the most urgent first.
//! In: frames. Out: bytes on the stream.
//! Limits: per channel 256 frames and one frame of full size more than fits; a full queue makes its
//! sender wait, whose deadline or connection ends the wait.
//! Tested by: below.

use super::Channel;
use super::wire::FRAME_BYTES_MAX;
use bytes::Bytes;
use futures::{Sink, SinkExt as _};
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

const FRAMES_MAX: usize = 256;
const KIB: usize = 1 << 10;
/// A frame of full size always fits when nothing else waits.
const KIB_MAX: usize = FRAME_BYTES_MAX / KIB + 1024;

struct Waiting {
    frame: Bytes,
    _room: OwnedSemaphorePermit,
}

#[derive(Clone)]
struct Lane {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

impl Lane {
    fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (queue, frames) = mpsc::channel(FRAMES_MAX);
        (Self { queue, room: Arc::new(Semaphore::new(KIB_MAX)) }, frames)
    }
}

/// The queues' entrances.
#[derive(Clone)]
pub struct Lanes {
    heartbeat: Lane,
    raft: Lane,
    operate: Lane,
}

/// The queues' exits.
pub struct Outbox {
    heartbeat: mpsc::Receiver<Waiting>,
    raft: mpsc::Receiver<Waiting>,
    operate: mpsc::Receiver<Waiting>,
}

/// The connection ended.
#[derive(Debug)]
pub struct Closed;

pub fn lanes() -> (Lanes, Outbox) {
    let (heartbeat, heartbeat_out) = Lane::new();
    let (raft, raft_out) = Lane::new();
    let (operate, operate_out) = Lane::new();
    let outbox = Outbox { heartbeat: heartbeat_out, raft: raft_out, operate: operate_out };
    (Lanes { heartbeat, raft, operate }, outbox)
}

impl Lanes {
    /// Queues a frame, and waits while the channel's queue is full.
    pub async fn send(&self, channel: Channel, frame: Bytes) -> Result<(), Closed> {
        let lane = match channel {
            Channel::Heartbeat => &self.heartbeat,
            Channel::Raft => &self.raft,
            Channel::Operate => &self.operate,
        };
        let kib = u32::try_from((frame.len() / KIB + 1).min(KIB_MAX)).unwrap_or(u32::MAX);
        let room = lane.room.clone().acquire_many_owned(kib).await.map_err(|_| Closed)?;
        lane.queue.send(Waiting { frame, _room: room }).await.map_err(|_| Closed)
    }
}

impl Outbox {
    async fn next(&mut self) -> Option<Waiting> {
        tokio::select! {
            biased;
            Some(frame) = self.heartbeat.recv() => Some(frame),
            Some(frame) = self.raft.recv() => Some(frame),
            Some(frame) = self.operate.recv() => Some(frame),
            else => None,
        }
    }

    fn next_now(&mut self) -> Option<Waiting> {
        self.heartbeat
            .try_recv()
            .or_else(|_| self.raft.try_recv())
            .or_else(|_| self.operate.try_recv())
            .ok()
    }

    /// Sends what is queued until the stream fails or nobody can queue any more.
    pub async fn drain_into<S>(mut self, mut sink: S) -> io::Result<()>
    where
        S: Sink<Bytes, Error = io::Error> + Unpin,
    {
        while let Some(mut waiting) = self.next().await {
            loop {
                sink.feed(waiting.frame).await?;
                match self.next_now() {
                    Some(next) => waiting = next,
                    None => break,
                }
            }
            sink.flush().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, StreamExt as _};

    #[tokio::test]
    async fn the_urgent_overtakes_what_waits() {
        let (lanes, outbox) = lanes();
        for channel in [Channel::Operate, Channel::Raft, Channel::Heartbeat] {
            lanes.send(channel, Bytes::from(vec![channel.number()])).await.unwrap();
        }
        drop(lanes);
        let (sink, frames) = futures::channel::mpsc::channel::<Bytes>(8);
        outbox.drain_into(sink.sink_map_err(io::Error::other)).await.unwrap();
        let order: Vec<u8> = frames.map(|frame| frame[0]).collect().await;
        assert_eq!(order, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_own_senders_wait() {
        let (lanes, _outbox) = lanes();
        // Without tokio's budget, which makes a busy task wait for another reason.
        let fits = |channel, frame| {
            tokio::task::unconstrained(lanes.send(channel, frame)).now_or_never().is_some()
        };
        let full = Bytes::from(vec![0; FRAME_BYTES_MAX]);
        assert!(fits(Channel::Raft, full.clone()));
        assert!(!fits(Channel::Raft, full));
        for _ in 0..FRAMES_MAX {
            assert!(fits(Channel::Heartbeat, Bytes::new()));
        }
        assert!(!fits(Channel::Heartbeat, Bytes::new()));
    }
}
