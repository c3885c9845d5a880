use super::*;
use crate::config::{PROBLEMS_MAX, Severity};

fn first(text: &str) -> Problem {
    problems(text).into_iter().next().expect("a problem")
}

/// Where the problem is, and the bytes that it underlines.
fn place<'a>(text: &'a str, problem: &Problem) -> (usize, usize, &'a str) {
    (problem.line, problem.column, &text[problem.span.clone()])
}

#[test]
fn a_problem_looks_like_a_compilers() {
    let text = with("zone = \"x\"", "zonne = \"x\"");
    assert_eq!(
        first(&text).render(),
        "\
error[TDM0203]: unknown key `nodes.a.zonne`
 --> t.toml:5:1
  |
5 | zonne = \"x\"
  | ^^^^^
  = because: a key that is ignored would be a setting you believe in and do not have
  = try: did you mean `zone`?
"
    );
}

#[test]
fn a_tab_is_one_column_and_the_underline_stays_in_place() {
    let text = with("zone = \"x\"", "\tzonne\t=\t\"x\"");
    let problem = first(&text);
    assert_eq!(place(&text, &problem), (5, 2, "zonne"));
    let shown = problem.render();
    assert!(shown.contains("5 |     zonne    =    \"x\"\n  |     ^^^^^\n"), "{shown}");
}

#[test]
fn columns_count_characters_and_spans_count_bytes() {
    let text = with("zone = \"x\"", "\"ключ\" = 1 # ü\n\"é\".\"ä\" = \"日本\"");
    let found = problems(&text);
    assert_eq!(place(&text, &found[0]), (5, 1, "\"ключ\""));
    assert_eq!(place(&text, &found[1]), (6, 1, "\"é\""));
    let text = with("zone = \"x\"", "zone = \"日本 語\"");
    let problem = first(&text);
    assert_eq!(place(&text, &problem), (5, 8, "\"日本 語\""));
    assert_eq!(problem.span, text.find("\"日本").map(|at| at..at + 12).expect("written"));
    let text = with("[nodes.a]", "nodes.\"日本\".address = 5 \n[nodes.a]");
    assert_eq!(place(&text, &problems(&text)[2]), (3, 22, "5"));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_move_nothing() {
    let text = with("zone = \"x\"", "zonne = \"x\"").replace('\n', "\r\n");
    let problem = first(&text);
    assert_eq!(place(&text, &problem), (5, 1, "zonne"));
    assert!(problem.render().contains("5 | zonne = \"x\"\n"), "{:?}", problem.render());
    assert_eq!(lines(&problems(&GOOD.replace('\n', "\r\n"))), Vec::<String>::new());

    let text = format!("\u{feff}{}", with("cluster", "clustre"));
    let problem = problems(&text).into_iter().find(|p| p.what.contains("clustre")).expect("it");
    assert_eq!(place(&text, &problem), (1, 1, "clustre"));
    assert!(problem.render().contains("1 | clustre = \"shop\"\n  | ^^^^^^^\n"));
    assert_eq!(lines(&problems(&format!("\u{feff}{GOOD}"))), Vec::<String>::new());
}

#[test]
fn a_long_line_is_shown_around_the_problem() {
    let text = with("zone = \"x\"", &format!("zone = \"{}\"", "é".repeat(100_000)));
    let shown = first(&text).render();
    assert!(shown.len() < 2_000, "{}", shown.len());
    assert!(shown.contains("t.toml:5:8"), "{shown}");
    let far = with("zone = \"x\"", &format!("zone = \"x\" # {}\u{0}", "é".repeat(100_000)));
    let problem = first(&far);
    assert_eq!((problem.line, problem.column), (5, 100_014));
    assert!(problem.render().len() < 2_000);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let shown = first(&with("zone = \"x\"", "zone = \"\u{1b}[2J\"")).render();
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
}

#[test]
fn a_problem_at_the_end_of_the_file_has_a_place() {
    for text in ["", "\n", "cluster", "cluster =", "cluster = \"", "[", "a.", "\u{feff}", "\r"] {
        for problem in problems(text) {
            assert!(problem.line >= 1 && problem.column >= 1, "{text:?}");
            assert!(problem.span.end <= text.len(), "{text:?}");
            assert!(problem.render().contains('^'), "{text:?}");
        }
    }
}

#[test]
fn every_syntax_error_has_its_line_and_comes_alone() {
    let text = GOOD
        .replace("zone = \"x\"", "zone = x y")
        .replace("listen = 5432", "listen = = 5432")
        .replace("lease", "leas");
    let found = problems(&text);
    let seen: Vec<_> = found.iter().map(|p| (p.code.id(), p.line)).collect();
    assert_eq!(seen, [("TDM0201", 5), ("TDM0201", 15)], "{:#?}", lines(&found));
    let twice = with("zone = \"x\"", "zone = \"x\"\nzone = \"y\"");
    assert_eq!(place(&twice, &first(&twice)), (6, 1, "zone"));
}

#[test]
fn problems_come_in_the_order_of_the_file_and_are_bounded() {
    let many: String = (0..1_000).map(|i| format!("key{i} = 1\n")).collect();
    let found = problems(&format!("{many}{GOOD}"));
    assert_eq!(found.len(), PROBLEMS_MAX);
    assert!(found.is_sorted_by_key(|problem| problem.span.start));
    let syntax = problems(&"= 1\n".repeat(1_000));
    assert_eq!(syntax.len(), PROBLEMS_MAX);
}

#[test]
fn a_file_over_the_limit_is_not_read() {
    let text = format!("{GOOD}#{}", "x".repeat(crate::config::FILE_BYTES_MAX));
    let found = problems(&text);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code.id(), found[0].severity), ("TDM0202", Severity::Error));
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let deep = format!("x = {}{}", open.repeat(100_000), close.repeat(100_000));
        assert!(!problems(&deep).is_empty());
    }
    assert!(!problems(&format!("{}x = 1", "a.".repeat(200_000))).is_empty());
}

#[test]
fn a_problem_is_json_for_programs() {
    let json = serde_json::to_value(first(&with("zone = \"x\"", "zonne = 1"))).expect("json");
    assert_eq!(json["code"], "TDM0203");
    assert_eq!(json["severity"], "error");
    assert_eq!((&json["line"], &json["column"]), (&5.into(), &1.into()));
    assert_eq!(json["try"], "did you mean `zone`?");
}

/// The largest files with the most problems, or the most of anything else.
#[test]
fn the_worst_files_take_seconds_at_most() {
    let started = std::time::Instant::now();
    let room = crate::config::FILE_BYTES_MAX;
    for piece in ["=\n", "[", "a=[[", "[a]\n", "a.a=1\n", "\"", "\r", "a", "é", "[[a]]\n", "{a=1,"]
    {
        let text = piece.repeat(room / piece.len());
        assert!(!problems(&text).is_empty(), "{piece:?}");
    }
    for line in ["x# = 1\n", "[nodes.n#]\n", "[services.s#]\n", "[services.s.postgresql]a#=1\n"] {
        let text: String = (0..room / 30).map(|i| line.replace('#', &i.to_string())).collect();
        assert!(!problems(&text).is_empty(), "{line:?}");
    }
    let addresses: String =
        (0..20_000).map(|i| format!("[nodes.n{i}]\naddress = \"n{i}:1\"\n")).collect();
    let services: String = (0..5_000)
        .map(|i| {
            format!(
                "[services.s{i}]\nkind='postgres'\nclustering='load-balanced'\n\
                 replication='primary-replica'\nlisten={i}\ndata_dir='/s{i}'\n"
            )
        })
        .collect();
    assert!(!problems(&format!("{GOOD}{services}")).is_empty());
    assert!(!problems(&format!("cluster = 'c'\n{addresses}")).is_empty());
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
