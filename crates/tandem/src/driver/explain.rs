//! Keeps the last plans with their reasons, for `tandem explain`.
//! In: plans of the controller and of the own instances. Out: what changed, newest last.

use crate::runtime::clock;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tandem_core::clustering::active_passive::Plan;
use tandem_core::ids::ServiceId;
use tandem_core::reason::Reason;

/// How many changes of mind are kept per service.
const KEPT_MAX: usize = 100;

/// One plan, as told to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// When it was first made, milliseconds since 1970.
    pub unix_ms: u64,
    /// Who planned: the controller or the instance.
    pub who: &'static str,
    /// What it does; empty is "waits".
    pub steps: Vec<String>,
    /// Why.
    pub reason: Reason,
    /// How often in a row it was made.
    pub times: u64,
}

/// The last plans of every service.
#[derive(Debug, Default)]
pub struct Explanations(Mutex<BTreeMap<ServiceId, VecDeque<Explained>>>);

impl Explanations {
    /// The controller planned.
    pub fn planned(&self, service: &ServiceId, plan: &Plan) {
        let steps = plan.steps.iter().map(|step| step.to_string()).collect();
        self.note(service, "controller", steps, &plan.reason);
    }

    /// Notes a plan if it differs from the last one of the same planner.
    pub fn note(
        &self,
        service: &ServiceId,
        who: &'static str,
        steps: Vec<String>,
        reason: &Reason,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = all.entry(service.clone()).or_default();
        let last = list.iter_mut().rev().find(|explained| explained.who == who);
        // Numbers change all the time; a plan that differs in nothing else is the same plan.
        if let Some(last) = last
            && last.steps == steps
            && same_words(last.reason.text(), reason.text())
        {
            last.times += 1;
            return;
        }
        tracing::info!(%service, who, ?steps, %reason, "plan");
        if list.len() == KEPT_MAX {
            list.pop_front();
        }
        let reason = reason.clone();
        list.push_back(Explained { unix_ms: clock::unix_ms(), who, steps, reason, times: 1 });
    }

    /// The plans of a service, oldest first.
    pub fn of(&self, service: &ServiceId) -> Vec<Explained> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(service).map(|list| list.iter().cloned().collect()).unwrap_or_default()
    }
}

fn same_words(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    words(a) == words(b)
}
