//! Reads the smallest parts of a story: numbers, times, and what a stop leaves of the facts.

use std::time::Duration;
use tandem_core::cluster::state::{Appointed, Cause};
use tandem_core::facts::{Fork, InstanceFacts};
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tandem_core::reason::Reason;

pub fn stop(facts: &mut InstanceFacts, clean: bool) {
    *facts = InstanceFacts { stopped_cleanly: clean, ..facts.clone().after_end() };
}

/// Timeline `number`, which left the one before it at `from`.
pub fn timeline(facts: &mut InstanceFacts, number: &str, from: Option<&str>) -> Option<()> {
    facts.timeline = TimelineId(number.parse().ok()?);
    if let Some(end) = from {
        let end = Lsn(end.parse().ok()?);
        facts.forks = vec![Fork { timeline: TimelineId(facts.timeline.0 - 1), end }];
    }
    Some(())
}

pub fn number(text: &str) -> Option<Term> {
    text.parse().ok().map(Term)
}

pub fn millis(text: &str) -> Option<Duration> {
    text.parse().ok().map(Duration::from_millis)
}

pub fn appointed(term: Term, primary: &NodeId, at_unix_ms: u64) -> Appointed {
    Appointed {
        term,
        primary: primary.clone(),
        cause: Cause::PostmasterDied,
        reason: String::new(),
        at_unix_ms,
        whole: true,
        active_unix_ms: Some(at_unix_ms),
    }
}

pub fn before_barrier(facts: &mut InstanceFacts) {
    (facts.serving, facts.checkpointed) = (None, false);
    facts.data_term = Term(facts.data_term.0 - 1);
}

/// The words, then the numbers.
pub fn told(reason: &Reason) -> String {
    let numbers: Vec<String> =
        reason.numbers().iter().map(|(name, value)| format!("{name} {value}")).collect();
    if numbers.is_empty() {
        return reason.to_string();
    }
    format!("{reason} [{}]", numbers.join(", "))
}
