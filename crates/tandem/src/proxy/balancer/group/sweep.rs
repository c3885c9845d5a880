//! Keeps a group in order, once in a while: cuts what is left where nothing more goes.
//! In: time that passes. Out: `Cut`s.
//! Not here: what a choice looks at (`group.rs`).
//! Tested by: `../tests/drain.rs`.

use super::{Group, Member, lock};
use crate::proxy::balancer::member::leaving::Cut;
use crate::runtime::clock;
use std::sync::Arc;

impl Group {
    /// Cuts what endpoints have that get no more work and had time enough, and says what was cut
    /// since the last call.
    pub(in crate::proxy::balancer) fn cut_overdue(&self) {
        let state = lock(&self.state);
        let now = clock::now();
        let is_late = |member: &Member| {
            let left = member.leaving.left(state.drain_max, now);
            left.is_some_and(|left| left.is_zero())
        };
        let all = state.members.iter().chain(&state.gone);
        let is_meant = |member: &&Arc<Member>| member.leaving.has_news() || is_late(member);
        let meant: Vec<Arc<Member>> = all.filter(is_meant).map(Arc::clone).collect();
        meant.iter().filter(|member| is_late(member)).for_each(|member| member.leaving.cut());
        drop(state);
        for member in meant {
            let count = member.leaving.tell();
            if count > 0 {
                let (service, address, upstream) =
                    (&self.service, member.address, member.upstream());
                tracing::warn!(%service, %address, count, "what was left was cut: drain_max");
                self.cuts.push(Cut { address, upstream, count });
            }
        }
        lock(&self.state).forget();
    }

    /// What was cut since the last call.
    pub(in crate::proxy::balancer) fn cuts(&self) -> Vec<Cut> {
        self.cuts.take()
    }
}
