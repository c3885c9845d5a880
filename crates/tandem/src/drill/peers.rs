//! Decides what a fault may cost, and says what it costs elsewhere: our budget, others' medians.
//! In: a `Fault` or its `Budget`, a `Summary`. Out: `Budget`, `Peers`, what is over budget in
//! words, a table.
//! How the others were measured, and what the numbers do not say: `docs/peers.md`.
//! Tested by: below.

use super::Fault;
use super::report::Summary;
use comfy_table::{Table, presets};
use serde::Serialize;

/// Between two acknowledgements on a machine that is busy with a whole cluster; "no outage".
const BASELINE_S: f64 = 0.1;
/// Full redundancy again, with no human, after whatever it was.
const REDUNDANT_AGAIN_S: f64 = 15.0;

/// What a fault may cost at most, as medians on a quiet machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// Longest time without any acknowledged write.
    pub outage_s: Option<f64>,
    /// Longest wait of one single client.
    pub stall_s: Option<f64>,
    /// Errors that one single client may see.
    pub errors_per_session: Option<u64>,
    /// The part of all requests that may fail, of those that may be sent again.
    pub failed_share_max: Option<f64>,
}

/// Median outages of other products in seconds, seen by a client at their own endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Peers {
    /// Patroni 4.1.5 with etcd and HAProxy, synchronous, as shipped.
    pub patroni_default: Option<f64>,
    /// The same with the smallest times that it accepts.
    pub patroni_tuned: Option<f64>,
    /// pg_auto_failover 2.0, synchronous, as shipped.
    pub pg_auto_failover: Option<f64>,
    /// repmgr 5.3.3, asynchronous, as shipped.
    pub repmgr: Option<f64>,
}

const fn peers(patroni: [f64; 2], pg_auto_failover: f64, repmgr: Option<f64>) -> Option<Peers> {
    Some(Peers {
        patroni_default: Some(patroni[0]),
        patroni_tuned: Some(patroni[1]),
        pg_auto_failover: Some(pg_auto_failover),
        repmgr,
    })
}

impl Fault {
    /// What it may cost.
    pub fn budget(self) -> Budget {
        let outage = |seconds| Budget { outage_s: Some(seconds), ..Budget::default() };
        match self {
            Self::PostmasterKill => outage(0.4),
            Self::NodeKill => outage(1.0),
            Self::NodeCut | Self::NodeFreeze | Self::DaemonFreeze => outage(2.5),
            Self::Switchover => Budget { errors_per_session: Some(1), ..outage(0.4) },
            Self::LinkCut | Self::LinkSlow => Budget { stall_s: Some(2.0), ..Budget::default() },
            Self::DaemonKill | Self::DaemonRestart => outage(0.0),
            Self::PostmasterFreeze
            | Self::StandbyKill
            | Self::LeaderKill
            | Self::TwoKill
            | Self::DiskFull
            | Self::AllKill
            | Self::InstanceKill
            | Self::InstanceFreeze
            | Self::Slow
            | Self::Lie
            | Self::Drain
            | Self::Scale
            | Self::Resize
            | Self::Restart
            | Self::Change => Budget::default(),
        }
    }

    /// What it costs elsewhere, where that was measured.
    pub const fn peers(self) -> Option<Peers> {
        match self {
            Self::PostmasterKill => peers([8.5, 3.1], 5.1, Some(51.8)),
            Self::NodeKill => peers([30.7, 23.0], 54.3, Some(51.3)),
            Self::NodeCut => peers([34.2, 24.9], 57.3, Some(67.5)),
            Self::Switchover => peers([7.5, 3.2], 3.6, None),
            // Their agent takes PostgreSQL with it.
            Self::DaemonRestart => peers([8.3, 3.2], 53.2, None),
            _ => None,
        }
    }
}

/// What cost more than it may, in words; empty when nothing did.
pub fn over_budget(budget: Budget, summary: &Summary) -> Vec<String> {
    let over = |what: &str, is: f64, may: Option<f64>| {
        let limit = may?.max(BASELINE_S);
        (is > limit).then(|| format!("{what} {is:.2} s, budget {limit:.1} s"))
    };
    let again = summary.redundant_again_s.map(|spread| spread.median);
    let errors = budget.errors_per_session.filter(|most| summary.errors_per_session_max > *most);
    let asked = (summary.acked + summary.errors).max(1) as f64;
    let failed = summary.errors as f64 / asked;
    let failed = budget.failed_share_max.filter(|most| failed > *most).map(|most| {
        let (is, most) = (failed * 100.0, most * 100.0);
        format!("{is:.3} % of requests failed, budget {most:.1} %")
    });
    let lines = [
        over("outage", summary.outage_s.median, budget.outage_s),
        over("stall", summary.stall_max_s.median, budget.stall_s),
        again.and_then(|again| over("redundant again", again, Some(REDUNDANT_AGAIN_S))),
        errors.map(|most| {
            let is = summary.errors_per_session_max;
            format!("{is} errors of one session, budget {most}")
        }),
        failed,
    ];
    lines.into_iter().flatten().collect()
}

/// The same faults elsewhere; nothing where none of them was measured.
pub fn beside(summaries: &[Summary]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let others = ["Patroni (tuned)", "pg_auto_failover", "repmgr"];
    table.set_header(["median outage s", "here"].into_iter().chain(others));
    let mut any = false;
    for summary in summaries {
        let Some(peers) = &summary.peers else { continue };
        any = true;
        let show = |seconds: Option<f64>| {
            seconds.map_or_else(|| "-".to_string(), |seconds| format!("{seconds:.1}"))
        };
        table.add_row([
            summary.fault.to_string(),
            format!("{:.2}", summary.outage_s.median),
            format!("{} ({})", show(peers.patroni_default), show(peers.patroni_tuned)),
            show(peers.pg_auto_failover),
            show(peers.repmgr),
        ]);
    }
    if !any {
        return String::new();
    }
    format!("\n{table}\nHow the others were measured: docs/peers.md")
}

#[cfg(test)]
mod tests {
    use super::super::report::Spread;
    use super::*;

    #[test]
    fn what_is_over_is_named() {
        let spread = |median| Spread { min: 0.0, median, max: 9.0 };
        let summary = |outage, stall, errors| Summary {
            outage_s: spread(outage),
            stall_max_s: spread(stall),
            redundant_again_s: Some(spread(3.0)),
            errors_per_session_max: errors,
            ..Summary::empty("x")
        };
        assert!(over_budget(Fault::Switchover.budget(), &summary(0.4, 5.0, 1)).is_empty());
        let over = over_budget(Fault::Switchover.budget(), &summary(0.5, 5.0, 2));
        assert_eq!(over, ["outage 0.50 s, budget 0.4 s", "2 errors of one session, budget 1"]);
        assert!(
            over_budget(Fault::DaemonKill.budget(), &summary(0.05, 0.0, 0)).is_empty(),
            "no outage"
        );
        assert_eq!(over_budget(Fault::DaemonKill.budget(), &summary(0.2, 0.0, 0)).len(), 1);
        assert_eq!(
            over_budget(Fault::LinkCut.budget(), &summary(9.0, 2.1, 9)),
            ["stall 2.10 s, budget 2.0 s"]
        );
        let thousandth = Budget { failed_share_max: Some(0.001), ..Budget::default() };
        let failing = Summary { acked: 990, errors: 10, ..summary(0.0, 0.0, 0) };
        let over = over_budget(thousandth, &failing);
        assert_eq!(over, ["1.000 % of requests failed, budget 0.1 %"]);
        let late = Summary { redundant_again_s: Some(spread(16.0)), ..summary(0.0, 0.0, 0) };
        assert_eq!(over_budget(Fault::AllKill.budget(), &late).len(), 1);
    }
}
