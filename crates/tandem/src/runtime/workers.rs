//! Runs one piece of work after the other in tasks that stay: to make one for each costs more.
//! In: work. Out: the same, at a task that waits for some.
//! States: of a task: → Working → (it asks for more) Waiting → (some is given) Working, (they are
//! dismissed, or enough wait already) it ends.
//! Costs: for each piece of work a few locks for which hardly anybody waits.
//! Full: a few wait, so that what many did for a moment does not keep its memory.
//! Not here: how a task is spawned (`supervisor.rs`), what it does.
//! Tested by: below.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// So many wait: as many clients come at once where they come one after the other.
const IDLE_MAX: usize = 64;

/// All tasks of one kind. Dropped, those that wait end.
#[derive(Debug)]
pub struct Workers<T>(Arc<Mutex<Idle<T>>>);

#[derive(Debug)]
struct Idle<T> {
    /// The one that was busy last is the last.
    places: Vec<Arc<Mutex<Place<T>>>>,
    is_dismissed: bool,
}

/// Where a task gets its work.
#[derive(Debug)]
struct Place<T> {
    work: Option<T>,
    is_dismissed: bool,
    task: Option<Waker>,
}

/// What one task has of all.
#[derive(Debug)]
pub struct Worker<T> {
    all: Arc<Mutex<Idle<T>>>,
    place: Arc<Mutex<Place<T>>>,
}

impl<T> Default for Workers<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Idle { places: Vec::new(), is_dismissed: false })))
    }
}

impl<T> Workers<T> {
    /// For a task that is about to be spawned.
    pub fn worker(&self) -> Worker<T> {
        let place = Place { work: None, is_dismissed: false, task: None };
        Worker { all: Arc::clone(&self.0), place: Arc::new(Mutex::new(place)) }
    }

    /// Gives the work to a task that waits.
    ///
    /// # Errors
    /// The work, where none waits.
    pub fn give(&self, work: T) -> Result<(), T> {
        let Some(place) = lock(&self.0).places.pop() else { return Err(work) };
        lock(&place).change(|place| place.work = Some(work));
        Ok(())
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut idle = lock(&self.0);
            idle.is_dismissed = true;
            std::mem::take(&mut idle.places)
        };
        for place in waiting {
            lock(&place).change(|place| place.is_dismissed = true);
        }
    }
}

impl<T> Place<T> {
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        // None: it has not been asked yet, and sees what has changed when it is.
        self.task.iter().for_each(Waker::wake_by_ref);
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<T>> {
        if self.work.is_some() || self.is_dismissed {
            return Poll::Ready(self.work.take());
        }
        match &mut self.task {
            Some(task) => task.clone_from(cx.waker()),
            task => *task = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Worker<T> {
    /// Waits for more work. None: the task may end. To be waited for to its end: whoever leaves
    /// earlier loses what it is given.
    pub async fn next(&mut self) -> Option<T> {
        {
            let mut idle = lock(&self.all);
            if idle.is_dismissed || idle.places.len() >= IDLE_MAX {
                return None;
            }
            idle.places.push(Arc::clone(&self.place));
        }
        poll_fn(|cx| lock(&self.place).poll(cx)).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::supervisor::{Supervisor, TaskKind};
    use std::collections::BTreeSet;
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio::task::{Id, id, yield_now};

    /// Gives work as those do who spawn where none waits. What is done is told, and by which task.
    fn give(
        (workers, supervisor): (&Workers<u32>, &Supervisor),
        work: u32,
        done: &mpsc::Sender<(u32, Id)>,
    ) {
        let Err(work) = workers.give(work) else { return };
        let (mut worker, done) = (workers.worker(), done.clone());
        supervisor.spawn("worker", TaskKind::Session, async move {
            let mut next = Some(work);
            while let Some(work) = next {
                yield_now().await;
                done.try_send((work, id())).unwrap();
                next = worker.next().await;
            }
        });
    }

    #[tokio::test]
    async fn one_task_does_what_comes_one_after_the_other() {
        let (workers, supervisor) = (Workers::default(), Supervisor::new());
        let (done, mut seen) = mpsc::channel(1);
        let mut tasks = BTreeSet::new();
        for work in 0..100 {
            give((&workers, &supervisor), work, &done);
            let (did, task) = seen.recv().await.unwrap();
            assert_eq!(did, work);
            tasks.insert(task.to_string());
        }
        assert_eq!(tasks.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn all_that_comes_at_once_is_done_once_and_few_wait_until_they_are_dismissed() {
        let (workers, supervisor) = (Workers::default(), Supervisor::new());
        let all: u32 = 10_000;
        let (done, mut seen) = mpsc::channel(all as usize);
        for work in 0..all {
            give((&workers, &supervisor), work, &done);
            if work % 100 == 0 {
                yield_now().await;
            }
        }
        let mut did = Vec::new();
        while did.len() < all as usize {
            did.push(seen.recv().await.unwrap().0);
        }
        did.sort_unstable();
        assert!(did.into_iter().eq(0..all));
        assert!(lock(&workers.0).places.len() <= IDLE_MAX);
        drop(workers);
        assert!(supervisor.stop(Duration::from_secs(20)).await, "some still wait");
    }

    #[tokio::test]
    async fn what_is_given_before_a_task_waits_for_it_is_done() {
        let workers = Workers::default();
        let mut worker = workers.worker();
        lock(&workers.0).places.push(Arc::clone(&worker.place));
        assert_eq!((workers.give(1), workers.give(2)), (Ok(()), Err(2)));
        assert_eq!(poll_fn(|cx| lock(&worker.place).poll(cx)).await, Some(1));
        drop(workers);
        assert_eq!(worker.next().await, None);
    }
}
