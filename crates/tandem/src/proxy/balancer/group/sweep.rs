//! Keeps a group in order, once in a while: cuts what is left where nothing more goes, leaves
//! out what is slow.
//! In: time that passes. Out: `Cut`s.
//! Not here: what a choice looks at (`group.rs`).
//! Tested by: `../tests/drain.rs`.

use super::{Group, Member, State, lock};
use crate::proxy::balancer::member::leaving::{Cut, Over};
use crate::runtime::clock;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Group {
    /// Cuts what endpoints have that get no more work and had time enough, and says what was cut
    /// since the last call.
    pub(in crate::proxy::balancer) fn cut_overdue(&self) {
        let state = lock(&self.state);
        let now = clock::now();
        let is_late = |member: &Member| {
            let left = member.leaving.left(state.bounds.drain_max, now);
            left.is_some_and(|left| left.is_zero())
        };
        let all = state.members.iter().chain(&state.gone);
        let is_meant = |member: &&Arc<Member>| member.leaving.has_news() || is_late(member);
        let meant: Vec<Arc<Member>> = all.filter(is_meant).map(Arc::clone).collect();
        meant.iter().filter(|member| is_late(member)).for_each(|it| it.leaving.cut(Over::Late));
        drop(state);
        for member in meant {
            let count = member.leaving.tell();
            if count > 0 {
                let (service, address, upstream) =
                    (&self.service, member.address, member.upstream());
                tracing::warn!(%service, %address, count, "what was left was cut");
                self.cuts.push(Cut { address, upstream, count });
            }
        }
        lock(&self.state).forget();
    }

    /// Cuts what is left where work was led, but for there: nobody is at work at any other of them.
    pub(in crate::proxy::balancer) fn cut_elsewhere(
        &self,
        there: SocketAddr,
        led: &BTreeSet<SocketAddr>,
    ) {
        let is_meant = |it: &Member| it.address != there && led.contains(&it.address);
        lock(&self.state).cut_gone(|it| is_meant(it) && it.is_leaving());
    }

    /// Ejects who takes much longer than the others.
    pub(in crate::proxy::balancer) fn judge(&self) {
        let mut state = lock(&self.state);
        let (now, window) = (clock::now(), state.limits.window);
        // Asked even where nobody is judged: what was measured before somebody asks for it is old.
        let paces: Vec<_> = state.members.iter().map(|it| it.pace(now, window)).collect();
        let slow = state.health.judge(&paces, now);
        if slow.is_empty() {
            return;
        }
        state.compute(now);
        let members: Vec<_> = slow.iter().map(|slow| Arc::clone(&state.members[slow.at])).collect();
        drop(state);
        let ms = |us: u64| us as f64 / 1000.0;
        for (member, slow) in members.iter().zip(slow) {
            let (own, others) = (ms(slow.median_us), ms(slow.others_us));
            member.is_slow_because(format!("it takes {own:.1} ms, the others {others:.1} ms"));
            member.ejected.fetch_add(1, Ordering::Relaxed);
            let (service, address) = (&self.service, member.address);
            tracing::info!(%service, %address, own, others, "endpoint ejected for being slow");
        }
        self.changed.send_replace(());
    }

    /// What was cut since the last call.
    pub(in crate::proxy::balancer) fn cuts(&self) -> Vec<Cut> {
        self.cuts.take()
    }
}

impl State {
    /// Cuts what waits for copies that are gone.
    pub(in crate::proxy::balancer) fn cut_gone(&self, is_meant: impl Fn(&Member) -> bool) {
        let all = self.members.iter().chain(&self.gone);
        let meant = all.filter(|it| it.has_work() && is_meant(it));
        meant.for_each(|member| member.leaving.cut(Over::Gone));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Wanted;
    use super::*;
    use std::time::Duration;
    use tandem_core::clustering::load_balanced::pace::VOLUME_MIN;

    /// Whoever switches it on asks for what is, and not for what was last week.
    #[tokio::test]
    async fn what_was_slow_before_anybody_asked_is_not_ejected_for_it() {
        let mut config = crate::proxy::balancer::tests::config(&[]);
        config.limits.window = Duration::from_millis(50);
        let group = Group::new(&config);
        let at = |port: u16| Wanted {
            upstream: Arc::from("one"),
            address: ([192, 0, 2, 1], port).into(),
            weight: 1,
            far: false,
            drain: false,
        };
        group.replace(&[at(1), at(2), at(3)]);
        let took = |slow_ms: u64| {
            for (member, ms) in group.members().iter().zip([slow_ms, 2, 2]) {
                (0..VOLUME_MIN).for_each(|_| member.took(Duration::from_millis(ms)));
            }
        };
        (0..3).for_each(|_| took(90));
        tokio::time::sleep(config.limits.window * 2).await;
        // As the sweep does all the time.
        group.judge();
        config.limits.latency_times = 5;
        config.limits.window = Duration::from_secs(600);
        group.configure(&config);
        took(2);
        group.judge();
        assert!(group.snapshot().iter().all(|it| it.ejected == 0), "{:?}", group.snapshot());
        (0..10).for_each(|_| took(90));
        group.judge();
        let slow = &group.snapshot()[0];
        assert_eq!(slow.ejected, 1, "{slow:?}");
    }
}
