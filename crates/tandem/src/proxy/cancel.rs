//! Talks to servers about a client's wish to cancel what it runs.
//! In: a CancelRequest, as it came. Out: the same packet, at the server that issued its key; at all
//! servers of the service if it was issued through another door, since each checks the key itself.
//! Keeps: at most `cancels_max` at a time, `limits.cancel` each; beyond, a request is dropped: by
//! the protocol it has no answer. Keys are never logged. H11: a cancel may reach a commit that
//! waits for its standbys; the relay then does not show it as success.
//! Tested by: `tests/cancel.rs`.

use super::connect;
use super::listener::Shared;
use super::pgwire::startup::CancelRequest;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Sends the request on, and returns when the servers have dealt with it: clients wait for the
/// close of their connection before they go on.
pub(super) async fn forward(shared: &Shared, request: &CancelRequest) {
    let Ok(_permit) = shared.cancels.try_acquire() else {
        shared.tally.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    shared.tally.cancels.fetch_add(1, Ordering::Relaxed);
    let targets = match shared.registry.find(&request.key) {
        Some(address) => BTreeSet::from([address]),
        None => everyone(shared),
    };
    let limit = shared.limits.cancel;
    let deliveries = targets.into_iter().map(|address| {
        // Lost or late, the client learns from its own session: that is all the protocol offers.
        async move { timeout(limit, deliver(shared, address, &request.packet)).await.ok() }
    });
    join_all(deliveries).await;
}

async fn deliver(shared: &Shared, address: SocketAddr, packet: &[u8]) -> Option<()> {
    let mut server = connect::dial(address, shared.limits.connect).await.ok()?;
    server.write_all(packet).await.ok()?;
    // The server closes without a word when it is done.
    server.read(&mut [0; 1]).await.ok().map(|_| ())
}

fn everyone(shared: &Shared) -> BTreeSet<SocketAddr> {
    let routes = shared.routes.borrow();
    let replicas = routes.replicas.iter().map(|replica| &replica.target);
    replicas.chain(&routes.primary).map(|target| target.address).collect()
}
