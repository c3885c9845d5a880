//! Talks to the kernel about what a killed keeper may have left: processes that no lease ends.
//! In: the data directory. Out: who was killed, once nobody works in it any more.
//! Keeps: H3 an instance is "stopped" only when none of its processes is left. PostgreSQL's
//! backends make sessions of their own, so a postmaster that was itself stopped leaves them behind,
//! and neither it nor a new keeper can end them.
//! Not here: what a living keeper ends by itself (`fence/keeper`).
//! Tested by: below, `tests/postgres_adapter.rs` with the daemon and real servers.

use crate::runtime::clock;
use crate::runtime::process::{Process, kill_in_directory};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tandem_core::time::Timestamp;

/// Between two looks at who is left; doubles.
const AGAIN_MIN: Duration = Duration::from_millis(2);
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// Killed and still there after this is stuck in the kernel (H28).
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Kills whatever works in `data`, again and again until nothing does.
pub(super) async fn sweep(data: &Path) -> BTreeSet<i32> {
    let mut killed = BTreeSet::new();
    let mut dying: Vec<Process> = Vec::new();
    let mut pause = AGAIN_MIN;
    let mut complain_at: Timestamp = clock::now().plus(STUCK_AFTER);
    loop {
        let place = data.to_owned();
        let look = move || {
            // The kernel names a process's folder without links.
            kill_in_directory(&place.canonicalize().unwrap_or(place))
        };
        // Where the answer is missing the daemon ends, and nobody waits for this any more.
        if let Ok(found) = tokio::task::spawn_blocking(look).await {
            killed.extend(found.iter().map(|process| process.pid));
            dying.extend(found);
            dying.retain(Process::is_still_alive);
            if dying.is_empty() {
                return killed;
            }
            if clock::now() >= complain_at {
                let data = data.display();
                tracing::error!(%data, pids = ?dying, "killed processes do not die");
                complain_at = clock::now().plus(STUCK_AFTER * 30);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::process;
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn h3_whoever_works_in_the_directory_is_gone_even_if_it_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let mut sleeper = Command::new("sleep")
            .arg("600")
            .current_dir(&data)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = sleeper.id().cast_signed();
        process::read(pid).unwrap().signal(rustix::process::Signal::STOP);
        let reaped = tokio::task::spawn_blocking(move || sleeper.wait().unwrap());
        assert_eq!(sweep(&link).await, BTreeSet::from([pid]));
        assert!(!process::is_alive(pid));
        assert!(!reaped.await.unwrap().success());
        assert_eq!(sweep(&dir.path().join("absent")).await, BTreeSet::new());
    }
}
