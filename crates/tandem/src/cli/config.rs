//! Talks to the person who wrote a configuration: `tandem config check` and `tandem config show`.
//! In: the text of a file. Out: strings; whoever calls prints them.
//! Not here: what is right and wrong (`config`), the command line itself (`cli`).

use crate::config::{self, Balanced, Command, Config, Origin, Problem, Shown};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::fmt::Write;
use tandem_core::ids::ServiceId;
use tandem_core::pairing::Pairing;
use tandem_core::spec::{Durability, NodeRole};

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to print.
    pub text: String,
    /// Whether the file can be used.
    pub usable: bool,
}

/// What `check` has to say.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    usable: bool,
    errors: usize,
    warnings: usize,
    problems: Vec<Problem>,
    /// None when the file cannot be used.
    summary: Option<Summary>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cluster: String,
    data_nodes: Vec<String>,
    witnesses: Vec<String>,
    /// How many nodes may be lost at once so that the others can still agree.
    losses_max: usize,
    services: Vec<ServiceSummary>,
    commands: Vec<CommandSummary>,
    balanced: Vec<BalancedSummary>,
}

#[derive(Debug, Serialize)]
struct CommandSummary {
    service: String,
    pairing: String,
    /// `singleton`, `copies` or `divided`.
    runs: &'static str,
    means: String,
}

#[derive(Debug, Serialize)]
struct BalancedSummary {
    service: String,
    pairing: String,
    endpoints: usize,
    means: String,
}

#[derive(Debug, Serialize)]
struct ServiceSummary {
    service: String,
    pairing: String,
    durability: &'static str,
    because: String,
    means: String,
    failover: String,
}

/// Checks a file: every problem, and what it would run.
pub fn check(text: &str, file_name: &str, format: Format) -> Outcome {
    let (problems, summary) = match Config::parse(text, file_name) {
        Ok(config) => {
            let summary = summary(&config);
            (config.warnings, Some(summary))
        }
        Err(problems) => (problems, None),
    };
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let report = Report {
        file: file_name.to_owned(),
        usable: summary.is_some(),
        errors,
        warnings: problems.len() - errors,
        problems,
        summary,
    };
    let text = match format {
        Format::Text => report_text(&report),
        Format::Json => json(&report),
    };
    Outcome { text, usable: report.usable }
}

/// Shows every value that is in effect; the problems instead, if the file cannot be used.
pub fn show(text: &str, file_name: &str, format: Format) -> Outcome {
    match Config::parse(text, file_name) {
        Ok(config) => {
            let shown = config::show(&config);
            let text = match format {
                Format::Text => shown_text(&shown, file_name),
                Format::Json => json(&shown),
            };
            Outcome { text, usable: true }
        }
        Err(_) => check(text, file_name, format),
    }
}

/// These types have string keys and no maps of our own: they always serialise.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).map_or_else(|error| error.to_string(), |text| text + "\n")
}

fn summary(config: &Config) -> Summary {
    let of_role = |role: NodeRole| -> Vec<String> {
        config.nodes.iter().filter(|(_, n)| n.role == role).map(|(id, _)| id.to_string()).collect()
    };
    Summary {
        cluster: config.cluster.clone(),
        data_nodes: of_role(NodeRole::Data),
        witnesses: of_role(NodeRole::Witness),
        losses_max: config.nodes.len().saturating_sub(1) / 2,
        services: config.services.keys().map(|id| service_summary(config, id)).collect(),
        commands: config.commands.iter().map(|(id, it)| command_summary(config, id, it)).collect(),
        balanced: config.balanced.iter().map(|it| balanced_summary(config, it)).collect(),
    }
}

fn service_summary(config: &Config, id: &ServiceId) -> ServiceSummary {
    let service = &config.services[id];
    let data = config.data_nodes().count();
    let standbys = data.saturating_sub(1);
    let (durability, means) = match service.durability {
        Durability::Quorum { acks } => (
            "quorum",
            format!("{acks} of {standbys} standbys confirm each commit; with fewer, writes wait"),
        ),
        Durability::Preferred { acks } => (
            "preferred",
            format!(
                "{} of {standbys} standbys confirm each commit; when they are lost, the primary \
                 goes on alone and says so",
                acks.min(standbys)
            ),
        ),
        Durability::Async { .. } => {
            ("async", "no standby confirms; a failover may lose the last commits".to_owned())
        }
    };
    ServiceSummary {
        service: id.to_string(),
        pairing: pair(service.pairing),
        durability,
        because: config::durability_because(config, id),
        means,
        failover: failover(config, id),
    }
}

fn pair(pairing: Pairing) -> String {
    format!("{}, {} × {}", pairing.kind(), pairing.clustering(), pairing.replication())
}

fn command_summary(config: &Config, id: &ServiceId, it: &Command) -> CommandSummary {
    let lease = config::print_duration(it.timing.lease);
    let nodes = config.data_nodes().count();
    let (runs, means) = match (&it.copies, &it.partitions) {
        (_, Some(partitions)) => ("divided", divided_means(config, partitions.count, &lease)),
        (Some(copies), None) => ("copies", copies_means(nodes, copies.replicas)),
        (None, None) => ("singleton", singleton_means(config, &lease)),
    };
    CommandSummary { service: id.to_string(), pairing: pair(it.pairing), runs, means }
}

fn singleton_means(config: &Config, lease: &str) -> String {
    match (config.data_nodes().count(), config.nodes.len()) {
        (1, _) => "runs on the only data node: nobody takes over".to_owned(),
        (_, 2) => "runs on one node; with two nodes nobody takes over without a witness".to_owned(),
        (nodes, _) => {
            format!("runs on one of {nodes} nodes; after a loss, lease {lease} is waited out")
        }
    }
}

fn copies_means(nodes: usize, replicas: Option<u32>) -> String {
    match replicas {
        Some(replicas) => format!(
            "run on {replicas} of {}; one whose node is lost for 5 s is replaced where there is \
             another",
            plural(nodes, "data node")
        ),
        None => format!(
            "one on each of {}; the others serve what a lost one did",
            plural(nodes, "data node")
        ),
    }
}

fn divided_means(config: &Config, count: u32, lease: &str) -> String {
    let work = plural(usize::try_from(count).unwrap_or(usize::MAX), "partition");
    match (config.data_nodes().count(), config.nodes.len()) {
        (1, _) => format!("{work}, all owned by the only data node"),
        (_, 2) => format!("{work}; with two nodes nobody gets a dead one's without a witness"),
        (nodes, _) => format!(
            "{work}, shared by {nodes} nodes; a dead one's go to the others once lease {lease} is \
             waited out"
        ),
    }
}

/// How many there are to be of a command.
fn copies_of(config: &Config, of: &ServiceId) -> usize {
    let copies = config.commands.get(of).and_then(|it| it.copies.as_ref());
    copies.map_or(1, |it| {
        it.replicas.map_or_else(|| config.data_nodes().count(), |count| count as usize)
    })
}

fn balanced_summary(config: &Config, (id, service): (&ServiceId, &Balanced)) -> BalancedSummary {
    let asked = service.health.map_or_else(
        || "not asked whether they answer".to_owned(),
        |health| format!("asked every {}", config::print_duration(health.interval)),
    );
    let chosen = format!("chosen by {}", service.policy.word());
    BalancedSummary {
        service: id.to_string(),
        pairing: pair(service.pairing),
        endpoints: match &service.leads_to {
            Some(of) => copies_of(config, of),
            None => service.upstreams.len(),
        },
        means: match &service.leads_to {
            Some(of) => format!("the copies of {of}, {chosen}; their nodes ask them"),
            None => format!("{chosen}, {asked}"),
        },
    }
}

/// Whether a standby takes over by itself, and what that needs (H47).
fn failover(config: &Config, id: &ServiceId) -> String {
    let data = config.data_nodes().count();
    let able = config.data_nodes().filter(|(_, node)| node.priority > 0).count();
    if data < 2 || able < 2 || config.nodes.len() < 3 {
        return "not automatic: see the warning".to_owned();
    }
    let standbys = data - 1;
    match config.services[id].durability {
        // Whoever did not promise might still confirm for the old primary: acks - 1 may be missing.
        Durability::Quorum { acks } | Durability::Preferred { acks } => format!(
            "automatic, if {} of {standbys} standbys and a majority of the nodes answer",
            (standbys + 1).saturating_sub(acks).max(1)
        ),
        Durability::Async { lag_bytes_max, lag_max } => format!(
            "automatic, to a standby at most {} and {} behind, once the old primary's lease has \
             ended",
            config::print_bytes(lag_bytes_max),
            config::print_duration(lag_max)
        ),
    }
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Writing to a String cannot fail: the results are dropped.
fn report_text(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{problem}");
    }
    if let Some(summary) = &report.summary {
        summary_text(summary, &mut text);
    }
    let verdict = if report.usable { "can be used" } else { "cannot be used" };
    let _ = writeln!(
        text,
        "{} {verdict}: {}, {}",
        report.file,
        plural(report.errors, "error"),
        plural(report.warnings, "warning")
    );
    text
}

fn summary_text(summary: &Summary, text: &mut String) {
    let Summary { cluster, data_nodes, witnesses, losses_max, services, commands, balanced } =
        summary;
    let _ = writeln!(text, "cluster {cluster}");
    let _ = writeln!(text, "  data nodes  {}", data_nodes.join(", "));
    if !witnesses.is_empty() {
        let _ = writeln!(text, "  witnesses   {}", witnesses.join(", "));
    }
    let voters = data_nodes.len() + witnesses.len();
    let _ = writeln!(text, "  agreement   survives the loss of {losses_max} of {voters} nodes");
    for service in services {
        let _ = writeln!(text, "service {}: {}", service.service, service.pairing);
        let _ = writeln!(text, "  durability  {}, because {}", service.durability, service.because);
        let _ = writeln!(text, "              {}", service.means);
        let _ = writeln!(text, "  failover    {}", service.failover);
    }
    for CommandSummary { service, pairing, runs, means } in commands {
        let _ = writeln!(text, "service {service}: {pairing}");
        let _ = writeln!(text, "  {runs:<12}{means}");
    }
    for BalancedSummary { service, pairing, endpoints, means } in balanced {
        let _ = writeln!(text, "service {service}: {pairing}");
        let _ = writeln!(text, "  upstream    {}, {means}", plural(*endpoints, "endpoint"));
    }
}

fn shown_text(shown: &[Shown], file_name: &str) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["key", "value", "origin"]);
    for Shown { key, value, origin } in shown {
        let origin = match origin {
            Origin::File(line) => format!("{file_name}:{line}"),
            Origin::Default(reason) => format!("default: {reason}"),
        };
        table.add_row([key.as_str(), value.as_deref().unwrap_or("-"), &origin]);
    }
    // The table fills its last column with spaces.
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
cluster = "shop"
[nodes.a]
address = "10.0.0.1:7400"
[nodes.b]
address = "10.0.0.2:7400"
[nodes.w]
address = "10.0.0.3:7400"
role = "witness"
[services.orders]
kind = "postgres"
clustering = "active-passive"
replication = "primary-replica"
"#;

    #[test]
    fn check_says_which_durability_and_why() {
        let outcome = check(TWO, "t.toml", Format::Text);
        assert!(outcome.usable);
        assert_eq!(
            outcome.text,
            "\
cluster shop
  data nodes  a, b
  witnesses   w
  agreement   survives the loss of 1 of 3 nodes
service orders: postgres, active-passive × primary-replica
  durability  preferred, because there are exactly two data nodes: with quorum, writes would stop \
whenever either is down
              1 of 1 standbys confirm each commit; when they are lost, the primary goes on alone \
and says so
  failover    automatic, if 1 of 1 standbys and a majority of the nodes answer
t.toml can be used: 0 errors, 0 warnings
"
        );
    }

    #[test]
    fn check_says_how_a_command_runs_by_its_pattern() {
        for (clustering, more, expected) in [
            (
                "active-passive",
                "",
                "  singleton   runs on one of 2 nodes; after a loss, lease 900ms",
            ),
            (
                "load-balanced",
                "listen = 80\nreplicas = 1\n",
                "  copies      run on 1 of 2 data nodes;",
            ),
            ("load-balanced", "listen = 80\n", "  copies      one on each of 2 data nodes;"),
            ("active-active", "listen = 80\n", "  copies      one on each of 2 data nodes;"),
            (
                "active-active",
                "partitions = 12\n",
                "  divided     12 partitions, shared by 2 nodes;",
            ),
        ] {
            let text = format!(
                "{TWO}[services.jobs]\nkind = \"command\"\nclustering = \"{clustering}\"\n\
                 replication = \"none\"\ncommand = [\"/srv/jobs\"]\n{more}"
            );
            let outcome = check(&text, "t.toml", Format::Text);
            assert!(
                outcome.usable && outcome.text.contains(expected),
                "{expected}: {}",
                outcome.text
            );
        }
    }

    /// H47: two nodes without a tie-breaker are told before anything runs.
    #[test]
    fn check_says_that_two_nodes_do_not_fail_over() {
        let text = TWO.replace("[nodes.w]\naddress = \"10.0.0.3:7400\"\nrole = \"witness\"\n", "");
        let outcome = check(&text, "t.toml", Format::Text);
        assert!(outcome.usable);
        for part in [
            "warning[TDM0231]: no automatic failover\n --> t.toml:3:2\n",
            "= try: add a third node",
            "  failover    not automatic: see the warning\n",
            "t.toml can be used: 0 errors, 1 warning\n",
        ] {
            assert!(outcome.text.contains(part), "{part}: {}", outcome.text);
        }
    }

    #[test]
    fn check_of_a_bad_file_names_every_problem_and_runs_nothing() {
        let text = TWO.replace("shop", "Shop").replace("postgres", "postgras");
        let outcome = check(&text, "t.toml", Format::Text);
        assert!(!outcome.usable);
        assert!(outcome.text.ends_with("t.toml cannot be used: 2 errors, 0 warnings\n"));
        let json = check(&text, "t.toml", Format::Json).text;
        let json: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(json["problems"].as_array().map(Vec::len), Some(2));
        assert_eq!((&json["usable"], &json["summary"]), (&false.into(), &().into()));
    }

    #[test]
    fn a_quorum_is_counted_in_standbys() {
        let text = TWO.replace(
            "role = \"witness\"\n",
            "[nodes.x]\naddress = \"x:1\"\n[nodes.y]\naddress = \"y:1\"\n",
        );
        let text = format!("{text}acks = 2\n");
        let json = check(&text, "t.toml", Format::Json).text;
        let json: serde_json::Value = serde_json::from_str(&json).expect("json");
        let orders = &json["summary"]["services"][0];
        assert_eq!(orders["durability"], "quorum");
        // Five data nodes: of four standbys two confirm, so any three include one that did.
        assert_eq!(
            orders["failover"],
            "automatic, if 3 of 4 standbys and a majority of the nodes answer"
        );
        assert_eq!(json["summary"]["losses_max"], 2);
    }

    #[test]
    fn show_prints_every_value_with_its_origin() {
        let outcome = show(TWO, "t.toml", Format::Text);
        assert!(outcome.usable);
        let row = |key: &str| {
            let row = outcome.text.lines().find(|line| line.split_whitespace().next() == Some(key));
            row.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
        };
        assert_eq!(row("cluster"), "cluster shop t.toml:2");
        assert_eq!(row("nodes.w.role"), "nodes.w.role witness t.toml:9");
        assert!(row("services.orders.durability").contains("preferred default: there are exactly"));
        assert!(row("services.orders.read_listen").starts_with("services.orders.read_listen - "));
        let json = show(TWO, "t.toml", Format::Json).text;
        let json: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(json[0]["origin"]["file"], 2);
        assert!(!show("x", "t.toml", Format::Text).usable);
    }
}
