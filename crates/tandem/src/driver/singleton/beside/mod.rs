//! Carries out the plans for a copy that need not be alone: no lease, doors that are told first.
//! In: agreed state, facts, other configurations. Out: facts, one thing at a time for the keeper.
//! States: member → (its service or node leaves) withdrawn → stopped → Ended, the keeper released.
//! Keeps: INV-14 a plan stops nothing that was not withdrawn. A daemon that ends leaves the copy
//! with its keeper, without a bound: the next one finds it.
//! Not here: the decisions (`tandem_core::clustering::copies`), starts and ends (`acting.rs`).
//! Tested by: `tests/copies`.

pub mod doors;

use super::acting::Part;
use super::{Life, SingletonDriver, Why};
use crate::consensus::Agreed;
use crate::runtime::clock;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::copies::copy::{self, Action, CopyView, Judged, Next, Wish};
use tandem_core::facts::Process;
use tandem_core::ids::Term;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;
use tokio_util::sync::CancellationToken;

/// What only a copy has that need not be alone.
#[derive(Debug)]
pub struct Beside {
    /// Its service or node leaves.
    ends: CancellationToken,
    /// The same, once it was noticed.
    leaves: bool,
    unwanted_since: Option<Timestamp>,
}

impl Beside {
    /// One that goes on until `ends`: that needs no room in a queue, so that it is never lost.
    pub fn new(ends: CancellationToken) -> Self {
        Self { ends, leaves: false, unwanted_since: None }
    }

    /// Whether it shall never be started again.
    pub(super) const fn leaves(&self) -> bool {
        self.leaves
    }

    /// Returns once it is to end; never where that is known.
    pub(super) async fn until_end(beside: Option<&Self>) {
        match beside {
            Some(beside) if !beside.leaves => beside.ends.cancelled().await,
            Some(_) | None => std::future::pending().await,
        }
    }
}

impl SingletonDriver {
    /// Notes that its service or node leaves.
    pub(super) fn note_end(&mut self) {
        if let Some(beside) = &mut self.it.beside {
            beside.leaves = beside.ends.is_cancelled();
        }
    }

    /// Whether nothing is left to do here, ever.
    pub(super) fn has_ended(&self) -> bool {
        let ends = match &self.it.beside {
            Some(beside) => beside.leaves(),
            // A promise that is late would undo what the next driver notes.
            None => self.gives_way && self.writing.is_none() && self.unheard.is_none(),
        };
        let nothing_runs = self.life == Life::Nothing && self.own.process == Process::Stopped;
        ends && nothing_runs && !self.keeper_lost
    }

    /// The last words: a keeper without anything to keep goes.
    pub(super) async fn retire(&self) {
        if let Err(error) = self.keeper.release().await {
            tracing::debug!(service = %self.service(), %error, "the keeper goes by itself");
        }
        self.it.hub.retire(self.service());
    }

    pub(super) async fn go_on_beside(
        &mut self,
        agreed: &Agreed,
        known: (Option<ServiceSpec>, Option<ServiceState>),
    ) -> Option<Timestamp> {
        let now = clock::now();
        self.note_end();
        let is_outdated = self.durable.recipe != self.recipe();
        self.own.pending_restart = self.life == Life::Runs && is_outdated;
        self.check_health();
        let me = self.it.hub.me().clone();
        let is_member = agreed.state.spec.nodes.contains_key(&me);
        // Under another pattern it is another service.
        let spec = known.0.filter(|spec| spec.copies.is_some());
        let gone = !is_member || spec.is_none() || self.away_until > now;
        // A service that was taken out is stopped as it was run.
        self.last_spec = spec.or(self.last_spec.take());
        let Some(spec) = self.last_spec.clone() else {
            self.stop(Why::Planned).await;
            return None;
        };
        let state = known.1.unwrap_or_default();
        let facts = self.it.hub.everyone();
        let beside = self.it.beside.as_ref();
        let leaves = gone || beside.is_some_and(Beside::leaves);
        let wish = if leaves { Wish::Leave } else { self.wish };
        let is_found = self.checks.is_unjudged() && self.own.serving.is_none();
        let view = CopyView {
            me: &me,
            service: self.service(),
            spec: &spec,
            nodes: &agreed.state.spec.nodes,
            draining: &agreed.state.draining,
            state: &state,
            facts: &facts,
            own: &self.own,
            wish,
            unwanted_since: beside.and_then(|beside| beside.unwanted_since),
            retry_at: self.retry_at.max(self.away_until),
            judged: if is_found { Judged::NotYet } else { Judged::Yes },
        };
        let next = copy::plan(&view, now);
        if let Some(beside) = &mut self.it.beside {
            beside.unwanted_since = next.unwanted_since(beside.unwanted_since, now);
        }
        let Next { action, reason, again, is_unwanted: _ } = next;
        let steps = action.iter().map(ToString::to_string).collect();
        self.it.explanations.note(self.service(), "instance", steps, &reason);
        if let Some(action) = action {
            self.act_beside(action, reason.text()).await;
        }
        self.publish();
        again
    }

    async fn act_beside(&mut self, action: Action, why: &str) {
        match action {
            Action::Withdraw => self.withdraw(why),
            Action::Return => self.own.withdrawn = None,
            Action::Stop => self.stop(Why::Planned).await,
            Action::Start { term } => self.start_beside(term),
        }
    }

    fn start_beside(&mut self, term: Term) {
        // One at a time; what was not written in time is planned again.
        if self.writing.is_some() || self.keeper_lost {
            return;
        }
        self.own.withdrawn = None;
        self.own.promoted = term;
        self.wish = Wish::Agreed;
        let has_hook = !self.it.config.on_start.is_empty();
        self.own.process = Process::Starting;
        self.begin(term, if has_hook { Part::OnStart } else { Part::Command });
    }
}
