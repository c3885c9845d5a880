//! Breaks a cluster once: wait until it is whole, write, inject, watch, heal, wait again, count.
//! In: a `Fault`. Out: `RunReport`.
//! States: Whole → Warming → Broken → (healed) Healing → Whole, each with a bound.
//! Not here: what each fault does (`fault.rs`), the order of runs (`run.rs`).
//! Tested by: below, with a stand-in cluster whose instance is a real PostgreSQL.

use super::cluster::{Action, Address};
use super::evidence::canary::Canary;
use super::evidence::history::Window;
use super::evidence::workload::Workload;
use super::evidence::{copies, ledger, overlap};
use super::fault::{Cast, Injection, Writes};
use super::report::{RunReport, milliseconds, seconds};
use super::rounds::Breaks;
use super::stage::{Stage, flowing};
use super::{Error, Fault};
use crate::runtime::clock;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tandem_core::time::Timestamp;

/// Writes that were under way when a fault stops all writes may still be acknowledged.
const IN_FLIGHT: Duration = Duration::from_millis(300);
/// What was seen while a cluster was broken.
struct Times {
    fault_at: Timestamp,
    healed_at: Option<Timestamp>,
    over_at: Timestamp,
    whole: bool,
    problems: Vec<String>,
}

impl Breaks for Stage {
    async fn mend(&self) {
        if let Err(error) = self.cluster.act(&Action::Mend).await {
            tracing::warn!(%error, "cannot mend the cluster");
        }
    }

    async fn run(&self, fault: Fault, round: u32, seed: u64) -> Result<RunReport, Error> {
        self.say(fault, "waiting for full redundancy", None);
        let mut cast = self.cast(seed, round).await?;
        if fault == Fault::LeaderKill && cast.leader.as_ref() == Some(&cast.primary) {
            cast = self.part_leader_and_primary(&cast, seed, round).await?;
        }
        let injection = fault.injection(&cast).ok_or_else(|| Error::Skipped {
            fault,
            because: "no node is what the fault is about".into(),
        })?;
        let addresses = self.cluster.addresses();
        let run = format!("{seed}/{fault}/{round}/{}", clock::unix_ms());
        let doors: Vec<SocketAddr> = addresses.iter().map(|address| address.door).collect();
        let workload = Workload::start(&self.load, &doors, &self.login, &run);
        let canary = Canary::start(&instances(&addresses), &self.login, &run);
        let times = self.break_and_heal(fault, &injection, (&workload, &canary)).await;
        let songs = canary.stop().await;
        let history = workload.stop().await;
        let mut times = times?;
        self.judge(fault, &cast, &mut times);
        let (rows, canary_rows) = self.read(&run).await?;
        if times.whole {
            let primary = self.view().primary;
            let copies = self.cluster.copies();
            let differ = copies::differences(&self.login, &copies, primary.as_ref(), &run).await;
            times.problems.extend(differ);
        }
        let balance = ledger::balance(&history, &rows);
        let canary_lost = songs
            .iter()
            .filter(|song| !canary_rows.contains_key(&(song.node.as_str().to_string(), song.n)))
            .count() as u64;
        let (p50, p99) = history.latency();
        let window = Window { from: times.fault_at, to: times.over_at };
        Ok(RunReport {
            fault: fault.name(),
            round,
            node: injection.node,
            outage_s: seconds(history.outage(window)),
            errors: history.errors(),
            errors_per_session_max: history.errors_per_session_max(window),
            acked: balance.acked,
            lost: balance.lost,
            duplicated: balance.duplicated,
            indeterminate: balance.unknown_present + balance.unknown_absent,
            dual_primary_instants: overlap::dual_primary_instants(&songs),
            primary_after: self.view().primary,
            redundant_again_s: times.whole.then(|| seconds(self.redundant_again(&times))),
            latency_p50_ms: milliseconds(p50),
            latency_p99_ms: milliseconds(p99),
            stall_max_s: seconds(history.stall_max(window)),
            phantoms: balance.phantoms,
            canary_acked: songs.len() as u64,
            canary_lost,
            canary_duplicated: ledger::canary_duplicated(&canary_rows),
            problems: times.problems,
        })
    }
}

impl Stage {
    async fn break_and_heal(
        &self,
        fault: Fault,
        injection: &Injection,
        (workload, canary): (&Workload, &Canary),
    ) -> Result<Times, Error> {
        self.say(fault, "warming up", Some(workload));
        let flows = || workload.acked() > 0 && flowing(workload);
        if !self.until(self.bounds.flow_max, (fault, "waiting for writes", workload), flows).await {
            let because = self.view().shortcoming.unwrap_or_else(|| "it seems whole".into());
            return Err(Error::NoWrites { seconds: self.bounds.flow_max.as_secs(), because });
        }
        tokio::time::sleep(self.bounds.warming).await;

        let mut problems = Vec::new();
        let fault_at = clock::now();
        self.say(fault, "breaking", Some(workload));
        self.act(&injection.inject, &mut problems).await;
        let lasted = || clock::now().since(fault_at) >= fault.lasts();
        match fault.writes() {
            Writes::GoOn => {
                let watched = (fault, "broken; waiting for writes", workload);
                let limit = fault.lasts() + self.bounds.flow_max;
                if !self.until(limit, watched, || lasted() && flowing(workload)).await {
                    problems.push("no writes while the fault lasted".into());
                }
            }
            Writes::Stop => {
                tokio::time::sleep(IN_FLIGHT).await;
                // Through the doors and past them: a client on the node itself counts too.
                let acked = || workload.acked() + canary.acked();
                let before = acked();
                let watched = (fault, "broken; nothing may be written", workload);
                self.until(fault.lasts() * 2, watched, lasted).await;
                let more = acked() - before;
                if more > 0 && self.view().durability.as_deref() == Some("quorum") {
                    problems.push(format!("{more} writes acknowledged without a commit quorum"));
                }
            }
        }
        let healed_at = (!injection.heal.is_empty()).then(clock::now);
        self.say(fault, "healing", Some(workload));
        self.act(&injection.heal, &mut problems).await;
        let mended = || {
            self.view().is_redundant_for(self.bounds.whole_for, clock::now()) && flowing(workload)
        };
        let watched = (fault, "healed; waiting for full redundancy", workload);
        let whole = self.until(self.bounds.mended_max, watched, mended).await;
        if !whole {
            let why = self.view().shortcoming.unwrap_or_else(|| "no writes".into());
            let limit = self.bounds.mended_max.as_secs();
            problems.push(format!("not fully redundant within {limit} s: {why}"));
        }
        Ok(Times { fault_at, healed_at, over_at: clock::now(), whole, problems })
    }

    /// All at once, as a real fault of several nodes would be.
    async fn act(&self, actions: &[Action], problems: &mut Vec<String>) {
        let done = actions.iter().map(|action| self.cluster.act(action));
        let results = futures::future::join_all(done).await;
        for error in results.into_iter().filter_map(Result::err) {
            problems.push(with_causes(&error));
        }
    }

    fn judge(&self, fault: Fault, cast: &Cast, times: &mut Times) {
        let after = self.view().primary;
        let moved = after.as_ref() != Some(&cast.primary);
        if moved && fault.keeps_primary() {
            times.problems.push("the primary moved without need".into());
        }
        if !moved && fault.moves_primary() {
            times.problems.push("the primary did not move".into());
        }
    }

    /// From healing, or from the fault where nothing was healed; zero if it never was less.
    fn redundant_again(&self, times: &Times) -> Duration {
        let since = self.view().redundant_since.unwrap_or(times.over_at);
        since.since(times.healed_at.unwrap_or(times.fault_at))
    }
}

fn instances(addresses: &[Address]) -> Vec<(NodeId, SocketAddr)> {
    addresses.iter().filter_map(|a| Some((a.node.clone(), a.instance?))).collect()
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
