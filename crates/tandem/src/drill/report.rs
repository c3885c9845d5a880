//! Decides what a drill as a whole says, and writes it for people and for programs.
//! In: `RunReport`s. Out: the documented JSON, tables, one line per run, `Verdict`.
//! Tested by: below.

use super::peers::{self, Peers, over_budget};
use super::{Error, Fault, Subject};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// What came of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was lost, duplicated or disputed, and every run recovered.
    Pass,
    /// Something of that happened.
    Fail,
}

/// One fault, once.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The fault's name.
    pub fault: &'static str,
    /// From 1.
    pub round: u32,
    /// The node that it was about.
    pub node: NodeId,
    /// Longest time without any acknowledged write, from the fault until full redundancy.
    pub outage_s: f64,
    /// Statements that certainly failed, and times when no front door let a writer in.
    pub errors: u64,
    /// Writes acknowledged to clients.
    pub acked: u64,
    /// Of these, missing in the end.
    pub lost: u64,
    /// Copies of writes that were sent once.
    pub duplicated: u64,
    /// Writes of unknown outcome.
    pub indeterminate: u64,
    /// Canary writes accepted by one node while another provably accepted writes too.
    pub dual_primary_instants: u64,
    /// The primary in the end.
    pub primary_after: Option<NodeId>,
    /// From healing (or from the fault where nothing is healed) to full redundancy; none if never.
    pub redundant_again_s: Option<f64>,
    /// Of acknowledged writes.
    pub latency_p50_ms: f64,
    /// Of acknowledged writes.
    pub latency_p99_ms: f64,
    /// Longest time that one single session waited for its next acknowledgement.
    pub stall_max_s: f64,
    /// Rows of writes that certainly failed, by what the client was told.
    pub phantoms: u64,
    /// Writes acknowledged to the canary, which goes past the front doors.
    pub canary_acked: u64,
    /// Of these, missing in the end.
    pub canary_lost: u64,
    /// Copies of canary writes that were sent once.
    pub canary_duplicated: u64,
    /// The most errors that one single client saw from the fault on.
    pub errors_per_session_max: u64,
    /// What else was not as it must be.
    pub problems: Vec<String>,
}

/// Smallest, middle and greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Smallest.
    pub min: f64,
    /// Middle; the mean of the two middle ones of an even number.
    pub median: f64,
    /// Greatest.
    pub max: f64,
}

/// All runs of one fault.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The fault's name.
    pub fault: &'static str,
    /// How many.
    pub runs: usize,
    /// As in the runs.
    pub outage_s: Spread,
    /// As in the runs.
    pub stall_max_s: Spread,
    /// As in the runs; none if no run got there.
    pub redundant_again_s: Option<Spread>,
    /// Sum.
    pub errors: u64,
    /// Sum.
    pub acked: u64,
    /// Sum.
    pub lost: u64,
    /// Sum.
    pub duplicated: u64,
    /// Sum.
    pub indeterminate: u64,
    /// Sum.
    pub dual_primary_instants: u64,
    /// Greatest.
    pub errors_per_session_max: u64,
    /// What the outage may be, as a median on a quiet machine; none where nothing is promised.
    pub budget_s: Option<f64>,
    /// What was more than it may be, in words. On a busy machine this says nothing.
    pub over_budget: Vec<String>,
    /// Median outages of other products under the same fault; none where that was not measured.
    pub peers: Option<Peers>,
}

/// A run that was not done or not finished, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Omission {
    /// The fault's name.
    pub fault: &'static str,
    /// From 1.
    pub round: u32,
    /// Why.
    pub reason: String,
}

/// A whole drill.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// This program's version.
    pub tandem: &'static str,
    /// What was drilled.
    pub service: &'static str,
    /// The server's version; none where none was drilled.
    pub postgres: Option<String>,
    /// What an acknowledged commit is worth.
    pub durability: String,
    /// Chose the standbys.
    pub seed: u64,
    /// In order.
    pub runs: Vec<RunReport>,
    /// By fault, in the order of the drill.
    pub summary: Vec<Summary>,
    /// Cannot be done here.
    pub skipped: Vec<Omission>,
    /// Begun and not finished.
    pub failed: Vec<Omission>,
    /// Why the drill ended before it was done; none if it did not.
    pub stopped: Option<String>,
    /// Whether what costs more than it may fails the drill too.
    pub strict: bool,
    /// The end of it.
    pub verdict: Verdict,
}

#[cfg(test)]
impl Summary {
    /// Of no runs.
    pub fn empty(fault: &'static str) -> Self {
        let nothing = Spread { min: 0.0, median: 0.0, max: 0.0 };
        Self {
            fault,
            runs: 0,
            outage_s: nothing,
            stall_max_s: nothing,
            redundant_again_s: None,
            errors: 0,
            acked: 0,
            lost: 0,
            duplicated: 0,
            indeterminate: 0,
            dual_primary_instants: 0,
            errors_per_session_max: 0,
            budget_s: None,
            over_budget: Vec::new(),
            peers: None,
        }
    }
}

impl RunReport {
    /// Whether everything was as it must be. Losses are told in any case, whoever wrote; with
    /// `async` they are what its owner chose, and fail nothing.
    pub fn verdict(&self, durability: &str) -> Verdict {
        let lost = if durability == "async" { 0 } else { self.lost + self.canary_lost };
        let duplicated = self.duplicated + self.canary_duplicated;
        let bad = lost + duplicated + self.dual_primary_instants + self.phantoms;
        let whole = self.redundant_again_s.is_some() && self.problems.is_empty();
        if bad == 0 && whole { Verdict::Pass } else { Verdict::Fail }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let again = self
            .redundant_again_s
            .map_or_else(|| "never".to_string(), |seconds| format!("{seconds:.1} s"));
        let mut line = format!(
            "{:<18} outage {:>6.2} s   acked {:>6}   lost {}   duplicated {}   \
             redundant again {:>7}   primary {}",
            self.fault,
            self.outage_s,
            self.acked,
            self.lost,
            self.duplicated,
            again,
            self.primary_after.as_ref().map_or("none", NodeId::as_str),
        );
        if self.dual_primary_instants > 0 {
            line.push_str(&format!("   TWO AT ONCE {} times", self.dual_primary_instants));
        }
        for problem in &self.problems {
            line.push_str(&format!("\n    {problem}"));
        }
        line
    }
}

/// Seconds, to the millisecond.
pub fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Milliseconds, to the hundredth.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        ((values[middle - 1] + values[middle]) * 500.0).round() / 1000.0
    };
    Some(Spread { min, median, max })
}

impl Report {
    /// A report without runs.
    pub fn new(subject: Subject, seed: u64) -> Self {
        Self {
            tandem: env!("CARGO_PKG_VERSION"),
            service: subject.name(),
            postgres: (subject == Subject::Postgres).then(|| "unknown".into()),
            durability: "unknown".into(),
            seed,
            runs: Vec::new(),
            summary: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            stopped: None,
            strict: false,
            verdict: Verdict::Fail,
        }
    }

    /// Adds the summary and the verdict.
    pub fn conclude(&mut self) {
        let subject: Subject = self.service.parse().unwrap_or(Subject::Postgres);
        let mut by_fault = BTreeMap::<usize, Vec<&RunReport>>::new();
        for run in &self.runs {
            let place = subject.faults().iter().position(|fault| fault.name() == run.fault);
            by_fault.entry(place.unwrap_or(usize::MAX)).or_default().push(run);
        }
        self.summary = by_fault.values().filter_map(|runs| summarize(subject, runs)).collect();
        let durability = &self.durability;
        let passed = self.runs.iter().all(|run| run.verdict(durability) == Verdict::Pass);
        // What was only skipped shows nothing.
        let complete = self.failed.is_empty() && self.stopped.is_none() && !self.runs.is_empty();
        let cheap = !self.strict || self.summary.iter().all(|it| it.over_budget.is_empty());
        self.verdict = if passed && complete && cheap { Verdict::Pass } else { Verdict::Fail };
    }

    /// For programs.
    ///
    /// # Errors
    /// When a number is no number.
    pub fn json(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|source| Error::Json { source })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "fault",
            "runs",
            "outage s\nmin / median / max",
            "budget",
            "stall s\nmedian",
            "redundant again s\nmedian",
            "errors\n(one session)",
            "acked",
            "lost",
            "dupl.",
            "indet.",
            "two primaries",
        ]);
        for summary in &self.summary {
            let Spread { min, median, max } = summary.outage_s;
            let again = summary.redundant_again_s.map(|spread| format!("{:.1}", spread.median));
            table.add_row([
                summary.fault.to_string(),
                summary.runs.to_string(),
                format!("{min:.2} / {median:.2} / {max:.2}"),
                budget(summary),
                format!("{:.2}", summary.stall_max_s.median),
                again.unwrap_or_else(|| "never".into()),
                format!("{} ({})", summary.errors, summary.errors_per_session_max),
                summary.acked.to_string(),
                summary.lost.to_string(),
                summary.duplicated.to_string(),
                summary.indeterminate.to_string(),
                summary.dual_primary_instants.to_string(),
            ]);
        }
        let mut text = table.to_string();
        text.push_str(&peers::beside(&self.summary));
        for (what, omissions) in [("skipped", &self.skipped), ("failed", &self.failed)] {
            for omission in omissions {
                let Omission { fault, round, reason } = omission;
                text.push_str(&format!("\n{what}: {fault}, round {round}: {reason}"));
            }
        }
        for summary in self.summary.iter().filter(|summary| !summary.over_budget.is_empty()) {
            let over = summary.over_budget.join("; ");
            text.push_str(&format!("\nover budget: {}: {over}", summary.fault));
        }
        if let Some(stopped) = &self.stopped {
            text.push_str(&format!("\nstopped: {stopped}"));
        }
        for run in self.runs.iter().filter(|run| !run.problems.is_empty()) {
            let problems = run.problems.join("; ");
            text.push_str(&format!("\n{}, round {}: {problems}", run.fault, run.round));
        }
        text.push_str(&format!("\n{}", self.conclusion()));
        text
    }

    /// The verdict in one sentence.
    pub fn conclusion(&self) -> String {
        let sum = |number: fn(&RunReport) -> u64| self.runs.iter().map(number).sum::<u64>();
        let (what, two) = match self.service.parse() {
            Ok(Subject::Postgres) => ("writes acknowledged", "primaries"),
            Ok(Subject::Partitions) => ("pieces of work done", "at work where one may be"),
            _ => ("requests answered", "at work where one may be"),
        };
        format!(
            "{}: {} {what}, {} lost, {} duplicated, {} instants with two {two}",
            match self.verdict {
                Verdict::Pass => "PASS",
                Verdict::Fail => "FAIL",
            },
            sum(|run| run.acked),
            sum(|run| run.lost),
            sum(|run| run.duplicated),
            sum(|run| run.dual_primary_instants),
        )
    }
}

/// The budget, marked where the median is over it.
fn budget(summary: &Summary) -> String {
    let mark = if summary.over_budget.is_empty() { "" } else { " OVER" };
    summary.budget_s.map_or_else(|| format!("-{mark}"), |budget| format!("{budget:.1}{mark}"))
}

fn summarize(subject: Subject, runs: &[&RunReport]) -> Option<Summary> {
    let sum = |number: fn(&RunReport) -> u64| runs.iter().map(|run| number(run)).sum::<u64>();
    let fault: Option<Fault> = runs.first()?.fault.parse().ok();
    let budget = fault.map(|fault| subject.budget(fault)).unwrap_or_default();
    let mut summary = Summary {
        fault: runs.first()?.fault,
        runs: runs.len(),
        outage_s: spread(runs.iter().map(|run| run.outage_s).collect())?,
        stall_max_s: spread(runs.iter().map(|run| run.stall_max_s).collect())?,
        redundant_again_s: spread(runs.iter().filter_map(|run| run.redundant_again_s).collect()),
        errors: sum(|run| run.errors),
        acked: sum(|run| run.acked),
        lost: sum(|run| run.lost),
        duplicated: sum(|run| run.duplicated),
        indeterminate: sum(|run| run.indeterminate),
        dual_primary_instants: sum(|run| run.dual_primary_instants),
        errors_per_session_max: runs.iter().map(|run| run.errors_per_session_max).max()?,
        budget_s: budget.outage_s,
        over_budget: Vec::new(),
        peers: fault.filter(|_| subject == Subject::Postgres).and_then(Fault::peers),
    };
    summary.over_budget = over_budget(budget, &summary);
    Some(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(fault: Fault, outage_s: f64) -> RunReport {
        RunReport {
            fault: fault.name(),
            round: 1,
            node: NodeId::new("a"),
            outage_s,
            errors: 4,
            acked: 100,
            lost: 0,
            duplicated: 0,
            indeterminate: 2,
            dual_primary_instants: 0,
            primary_after: Some(NodeId::new("b")),
            redundant_again_s: Some(3.2),
            latency_p50_ms: 1.1,
            latency_p99_ms: 9.0,
            stall_max_s: 1.0,
            phantoms: 0,
            canary_acked: 20,
            canary_lost: 0,
            canary_duplicated: 0,
            errors_per_session_max: 1,
            problems: Vec::new(),
        }
    }

    fn report(runs: Vec<RunReport>) -> Report {
        let mut report =
            Report { durability: "quorum".into(), runs, ..Report::new(Subject::Postgres, 7) };
        report.conclude();
        report
    }

    #[test]
    fn the_documented_shape() {
        let report = report(vec![
            run(Fault::NodeKill, 0.9),
            run(Fault::PostmasterKill, 0.4),
            run(Fault::PostmasterKill, 0.2),
            run(Fault::PostmasterKill, 0.3),
        ]);
        let text = report.json().unwrap();
        let start = concat!(
            r#"{"tandem":"0.1.0","service":"postgres","postgres":"unknown","#,
            r#""durability":"quorum","seed":7,"runs":[{"#,
            r#""fault":"node-kill","round":1,"node":"a","outage_s":0.9,"errors":4,"acked":100,"#,
            r#""lost":0,"duplicated":0,"indeterminate":2,"dual_primary_instants":0,"#,
            r#""primary_after":"b","redundant_again_s":3.2,"latency_p50_ms":1.1,"#,
            r#""latency_p99_ms":9.0"#,
        );
        assert!(text.starts_with(start), "{text}");
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["summary"][0]["fault"], "postmaster-kill", "in the order of the drill");
        assert_eq!(json["summary"][0]["runs"], 3);
        let spread = serde_json::json!({"min": 0.2, "median": 0.3, "max": 0.4});
        assert_eq!(json["summary"][0]["outage_s"], spread);
        assert_eq!(json["summary"][0]["lost"], 0);
        assert_eq!(json["verdict"], "pass");
        assert_eq!(json["summary"][0]["budget_s"], 0.4);
        assert_eq!(json["summary"][0]["over_budget"], serde_json::json!([]));
        assert_eq!(json["summary"][0]["peers"]["patroni_default"], 8.5);
        assert_eq!(json["summary"][0]["errors_per_session_max"], 1);
        let slow = super::tests::report(vec![run(Fault::PostmasterKill, 0.7)]).table();
        assert!(slow.contains("8.5 (3.1)"), "{slow}");
        assert!(
            slow.contains("0.4 OVER") && slow.contains("over budget: postmaster-kill"),
            "{slow}"
        );
        let table = report.table();
        assert!(
            table.contains("0.20 / 0.30 / 0.40") && table.contains("PASS: 400 writes"),
            "{table}"
        );
    }

    #[test]
    fn every_defect_fails_the_drill() {
        let defects: [fn(&mut RunReport); 8] = [
            |run| run.lost = 1,
            |run| run.duplicated = 1,
            |run| run.dual_primary_instants = 1,
            |run| run.phantoms = 1,
            |run| run.canary_lost = 1,
            |run| run.canary_duplicated = 1,
            |run| run.redundant_again_s = None,
            |run| run.problems.push("failed over".into()),
        ];
        for defect in defects {
            let mut broken = run(Fault::LinkCut, 0.1);
            defect(&mut broken);
            let report = report(vec![run(Fault::NodeKill, 0.1), broken]);
            assert_eq!(report.verdict, Verdict::Fail);
            assert!(report.table().contains("FAIL"));
        }
        assert_eq!(report(Vec::new()).verdict, Verdict::Fail, "nothing was shown");
        let mut lossy = run(Fault::NodeKill, 0.1);
        (lossy.canary_lost, lossy.lost) = (5, 5);
        assert_eq!(lossy.verdict("async"), Verdict::Pass, "a loss that its owner chose");
        assert_eq!(lossy.verdict("preferred"), Verdict::Fail, "one node lost is no reason for it");

        let mut skipped = Report::new(Subject::Postgres, 7);
        let reason = "no small disks".to_string();
        skipped.skipped.push(Omission { fault: Fault::DiskFull.name(), round: 1, reason });
        skipped.conclude();
        assert_eq!(skipped.verdict, Verdict::Fail, "what was only skipped shows nothing");
        let mut stopped = report(vec![run(Fault::NodeKill, 0.1)]);
        stopped.stopped = Some("interrupted".into());
        stopped.conclude();
        assert_eq!(stopped.verdict, Verdict::Fail);
        assert!(stopped.json().unwrap().contains(r#""stopped":"interrupted""#));
    }

    #[test]
    fn what_costs_too_much_fails_a_strict_drill_only() {
        let mut slow = report(vec![run(Fault::PostmasterKill, 0.7)]);
        assert_eq!((slow.verdict, slow.summary[0].over_budget.len()), (Verdict::Pass, 1));
        slow.strict = true;
        slow.conclude();
        assert_eq!(slow.verdict, Verdict::Fail);
        let table = slow.table();
        let told = table.contains("over budget: postmaster-kill") && table.contains("FAIL");
        assert!(told, "{table}");
        let mut fast = report(vec![run(Fault::PostmasterKill, 0.3)]);
        fast.strict = true;
        fast.conclude();
        assert_eq!(fast.verdict, Verdict::Pass);
    }

    #[test]
    fn numbers() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0, 5.0]).unwrap().median, 2.5);
        assert_eq!(spread(Vec::new()), None);
        assert_eq!(seconds(Duration::from_micros(1_234_567)), 1.235);
        assert_eq!(milliseconds(Duration::from_micros(1_234)), 1.23);
    }
}
