//! Decides what a ledger proves of divided work: whether a partition was worked on twice, and for
//! how long nobody worked on one. Talks to the ledger meanwhile, for whoever waits for that.
//! In: `Line`s in the order in which they were written. Out: numbers, `Pieces`.
//! Keeps: INV-13 is checked here from outside, by what the copies themselves did.
//! Not here: what a copy does (`worker/divided.rs`).
//! Tested by: below.

use crate::drill::evidence::history::{Window, longest_gap};
use crate::drill::stage::LOOK;
use crate::drill::worker::{Does, Line, read};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tandem_core::time::Timestamp;

/// The reader ends at once.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Who is at work on a partition.
#[derive(Debug)]
struct Worker<'a> {
    epoch: u64,
    copy: (&'a str, u32),
    /// Who was, under the same epoch.
    gone: BTreeSet<(&'a str, u32)>,
}

/// How many lines somebody wrote who was not to work on that any more: another one had begun, under
/// a later epoch or under the same. A copy that was started anew on its node goes on under the
/// epoch of before; nobody else does.
pub fn worked_twice(lines: &[Line]) -> u64 {
    let mut workers = BTreeMap::<u32, Worker<'_>>::new();
    let mut times = 0;
    for line in lines {
        let Does::Work { id, epoch } = line.does else { continue };
        let copy = (line.name.as_str(), line.pid);
        let begins = || Worker { epoch, copy, gone: BTreeSet::new() };
        let worker = workers.entry(id).or_insert_with(begins);
        if epoch > worker.epoch {
            *worker = begins();
        } else if epoch < worker.epoch || worker.gone.contains(&copy) {
            times += 1;
        } else if copy != worker.copy {
            times += u64::from(copy.0 != worker.copy.0);
            worker.gone.insert(worker.copy);
            worker.copy = copy;
        }
    }
    times
}

/// The longest time within the window in which nobody worked on one of so many partitions.
pub fn nobody_at_work(lines: &[Line], count: u32, window: Window) -> Duration {
    let mut moments = BTreeMap::<u32, Vec<Timestamp>>::new();
    for line in lines {
        if let Does::Work { id, .. } = line.does {
            moments.entry(id).or_default().push(line.at);
        }
    }
    let gap = |id| longest_gap(moments.remove(&id).unwrap_or_default().into_iter(), window);
    (0..count).map(gap).max().unwrap_or_default()
}

/// How much was worked on.
pub fn count(lines: &[Line]) -> u64 {
    lines.iter().filter(|line| matches!(line.does, Does::Work { .. })).count() as u64
}

/// What is worked on, while it is.
#[derive(Debug)]
pub struct Pieces {
    seen: Arc<Mutex<Seen>>,
    count: u32,
    tasks: Supervisor,
}

#[derive(Debug, Default)]
struct Seen {
    done: u64,
    last: BTreeMap<u32, (Timestamp, String)>,
}

impl Pieces {
    /// Reads a ledger from a place on.
    pub fn start(path: &Path, from: u64, count: u32) -> Self {
        let (seen, tasks) = (Arc::<Mutex<Seen>>::default(), Supervisor::new());
        let run = watch(path.to_owned(), from, Arc::clone(&seen));
        let stop = tasks.stopping();
        tasks.spawn("drill ledger", TaskKind::Session, async move {
            tokio::select! { () = stop.cancelled() => {}, () = run => {} }
        });
        Self { seen, count, tasks }
    }

    /// How much was worked on so far.
    pub fn done(&self) -> u64 {
        lock(&self.seen).done
    }

    /// When each partition had been worked on lately.
    pub fn last(&self) -> Timestamp {
        let seen = lock(&self.seen);
        let last = |id| seen.last.get(&id).map(|(at, _)| *at).unwrap_or_default();
        (0..self.count).map(last).min().unwrap_or_default()
    }

    /// How many partitions somebody was the last to work on.
    pub fn share(&self, name: &str) -> usize {
        lock(&self.seen).last.values().filter(|(_, by)| by == name).count()
    }

    /// Ends the reading.
    pub async fn stop(self) {
        self.tasks.stop(STOP_MAX).await;
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

async fn watch(path: PathBuf, mut from: u64, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok((lines, next)) = read(&path, from) {
            from = next;
            let mut seen = lock(&seen);
            seen.done += count(&lines);
            for line in lines {
                if let Does::Work { id, .. } = line.does {
                    seen.last.insert(id, (line.at, line.name));
                }
            }
        }
        tokio::time::sleep(LOOK * 2).await;
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Nothing panics while it holds the lock.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::testing::until;
    use crate::drill::worker::Ledger;

    fn works(name: &str, pid: u32, ms: u64, (id, epoch): (u32, u64)) -> Line {
        let does = Does::Work { id, epoch };
        Line { name: name.into(), pid, term: 1, at: Timestamp(ms * 1000), does }
    }

    #[test]
    fn inv13_one_after_another_is_no_fault_and_both_at_once_is_one() {
        let mut lines = vec![
            works("a", 1, 0, (0, 1)),
            works("b", 2, 0, (1, 1)),
            // Started anew on its node, it goes on.
            works("a", 3, 9, (0, 1)),
            // Moved.
            works("b", 2, 20, (0, 2)),
            works("b", 2, 25, (1, 1)),
        ];
        assert_eq!(worked_twice(&lines), 0);
        lines.push(works("a", 3, 26, (0, 1)));
        assert_eq!(worked_twice(&lines), 1, "its epoch is over");
        lines.push(works("c", 4, 27, (1, 1)));
        assert_eq!(worked_twice(&lines), 2, "two nodes under one epoch");
        lines.push(works("b", 2, 28, (1, 1)));
        assert_eq!(worked_twice(&lines), 3, "and the first one still does");
    }

    #[test]
    fn the_longest_pause_of_any_partition_counts() {
        let lines = [
            works("a", 1, 10, (0, 1)),
            works("a", 1, 10, (1, 1)),
            works("b", 2, 30, (0, 2)),
            works("b", 2, 80, (1, 2)),
        ];
        let window = Window { from: Timestamp(0), to: Timestamp(100_000) };
        assert_eq!(nobody_at_work(&lines, 2, window), Duration::from_millis(70));
        assert_eq!(nobody_at_work(&lines, 3, window), Duration::from_millis(100), "never begun");
        assert_eq!(count(&lines), 4);
    }

    #[tokio::test]
    async fn what_is_worked_on_is_seen_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let pieces = Pieces::start(&path, 0, 2);
        let ledger = Ledger::open(&path, "a", 1).unwrap();
        ledger.write(&[Does::Work { id: 0, epoch: 1 }]).unwrap();
        until("one is worked on", || pieces.done() == 1).await;
        assert_eq!(pieces.last(), Timestamp(0), "and the other is not");
        ledger.write(&[Does::Work { id: 1, epoch: 1 }]).unwrap();
        until("both are", || pieces.last() > Timestamp(0)).await;
        assert_eq!((pieces.share("a"), pieces.share("b")), (2, 0));
        pieces.stop().await;
    }
}
