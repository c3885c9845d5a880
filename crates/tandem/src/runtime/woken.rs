//! Runs a future that seldom has something to say once it has, and not whenever its task runs.
//! In: a future beside one that moves often. Out: what it says.
//! Costs: one allocation; each turn of the task an exchange and a look at who is woken.
//! Tested by: below.

use futures::task::AtomicWaker;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Remembers that somebody rang.
#[derive(Default)]
struct Bell {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Ready when `what` is.
pub async fn when_woken<T>(mut what: impl Future<Output = T> + Unpin) -> T {
    // Asked at first, so that it knows whom to wake.
    let bell = Arc::new(Bell { rang: true.into(), task: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(|cx| {
        // Before the look: whoever rings in between wakes the task.
        bell.task.register(cx.waker());
        if !bell.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut what).poll(&mut Context::from_waker(&waker))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    #[tokio::test]
    async fn it_is_asked_when_it_has_something_to_say_and_not_before() {
        let (asked, first, second) = (AtomicU32::new(0), Notify::new(), Notify::new());
        let mut says = pin!(async {
            first.notified().await;
            second.notified().await;
            "all"
        });
        let what = pin!(poll_fn(|cx| {
            asked.fetch_add(1, Ordering::Relaxed);
            says.as_mut().poll(cx)
        }));
        let often = async {
            for turn in 0..10 {
                match turn {
                    3 => first.notify_one(),
                    6 => second.notify_one(),
                    _ => {}
                }
                yield_now().await;
            }
            std::future::pending().await
        };
        let said = tokio::select! {
            said = when_woken(what) => said,
            () = often => "nothing",
        };
        assert_eq!((said, asked.load(Ordering::Relaxed)), ("all", 3));
    }
}
