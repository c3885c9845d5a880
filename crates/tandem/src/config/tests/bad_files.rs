use super::*;
use std::fmt::Write;
use std::path::Path;

const FILE: &str = "src/config/tests/bad_files.txt";

/// One block of the file: what is replaced, by what, and what is said about the result.
#[derive(Default)]
struct Case {
    old: Vec<String>,
    new: Vec<String>,
    expected: String,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let mut case = Case::default();
        for line in block.lines().filter(|line| !line.starts_with('#')) {
            let rest = || line.get(2..).unwrap_or("").to_owned();
            match line.chars().next() {
                Some('-') => case.old.push(rest()),
                Some('+') => case.new.push(rest()),
                _ => {
                    let _ = writeln!(case.expected, "{line}");
                }
            }
        }
        if !case.old.is_empty() {
            cases.push(case);
        }
    }
    cases
}

fn told(text: &str) -> String {
    let found = problems(text);
    let mut told = String::new();
    for (line, problem) in lines(&found).iter().zip(&found) {
        let _ = writeln!(told, "{line}\n  because: {}\n  try: {}", problem.because, problem.try_);
    }
    told
}

/// Every way to be wrong, with its exact place and all of its words.
#[test]
fn every_bad_file_is_told_what_where_why_and_what_instead() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = std::fs::read_to_string(&path).expect("the cases");
    let update = std::env::var_os("UPDATE").is_some();
    let mut rewritten: String =
        text.lines().take_while(|l| l.starts_with('#')).fold(String::new(), |mut head, line| {
            let _ = writeln!(head, "{line}");
            head
        });
    let cases = cases(&text);
    assert!(cases.len() > 80, "{} cases", cases.len());
    for case in cases {
        let (old, new) = (case.old.join("\n"), case.new.join("\n"));
        let told = told(&with(&old, &new));
        assert!(!told.is_empty(), "nothing is said about {new:?} for {old:?}");
        if !update {
            assert_eq!(told, case.expected, "{new:?} for {old:?}");
        }
        rewritten.push('\n');
        for (mark, lines) in [('-', &case.old), ('+', &case.new)] {
            for line in lines {
                let _ = writeln!(rewritten, "{}", format!("{mark} {line}").trim_end());
            }
        }
        rewritten.push_str(&told);
    }
    if update {
        std::fs::write(&path, rewritten).expect("the cases");
    }
}

#[test]
fn somebody_must_be_able_to_be_primary() {
    let never = GOOD.replace(":7400\"\n", ":7400\"\npriority = 0\n");
    assert_eq!(lines(&problems(&never)), ["TDM0215 error 3:2 +5: no node may be primary"]);
    let one = never.replacen("priority = 0", "priority = 1", 1);
    assert_eq!(lines(&problems(&one)), ["TDM0231 warning 3:2 +5: no automatic failover"]);
    let witnesses = GOOD.replace(":7400\"\n", ":7400\"\nrole = \"witness\"\n");
    assert_eq!(lines(&problems(&witnesses)), ["TDM0215 error 3:2 +5: every node is a witness"]);
    assert_eq!(
        lines(&problems("cluster = \"shop\"\n")),
        ["TDM0215 error 1:1 +0: there is no node"]
    );
}

#[test]
fn there_are_limits() {
    let node = |i: usize| format!("[nodes.n{i}]\naddress = \"n{i}:1\"\n");
    let nodes: String = (0..50).map(node).collect();
    assert!(problems(&format!("{GOOD}{nodes}"))[0].what.contains("more than 50 nodes"));
    let service = |i: usize| {
        format!(
            "[services.s{i}]\nkind = \"postgres\"\nclustering = \"active-passive\"\n\
             replication = \"primary-replica\"\nlisten = {}\n",
            20_000 + i
        )
    };
    let services = |count| format!("{GOOD}{}", (0..count).map(service).collect::<String>());
    assert!(problems(&services(99)).is_empty());
    assert!(problems(&services(100))[0].what.contains("more than 100 services"));
}
