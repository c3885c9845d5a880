//! Talks to whoever sends signals: waits until the process is asked to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM or SIGINT; never, if no handler can be set.
pub async fn asked_to_stop() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
