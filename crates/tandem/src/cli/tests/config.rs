//! `tandem config`.

use super::{Remembers, ok, refused};
use crate::api::operations::{Refused, Verb};
use crate::api::tests::{Served, fake, serve};
use crate::cli::Error;
use crate::cli::client::Client;
use crate::cli::run::config::{Arguments, Command, run};
use crate::cli::terminal::tests::Paper;
use crate::telemetry::codes;
use tandem_core::ids::ConfigVersion;

#[tokio::test]
async fn a_file_is_applied_on_the_version_that_was_running() {
    let served = serve().await;
    assert_eq!(ok(&served, "config show --running").await, "cluster = \"shop\"\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem.toml");
    std::fs::write(&file, "cluster = \"new\"").unwrap();
    let _ = ok(&served, &format!("config apply {}", file.display())).await;
    let asked = served.fake.asked.lock().unwrap().pop();
    let text = "cluster = \"new\"".to_owned();
    assert_eq!(asked, Some(Verb::ApplyConfig { text, expected: Some(ConfigVersion(3)) }));
    let _ = ok(&served, &format!("config apply {} --expect 2", file.display())).await;
    let asked = served.fake.asked.lock().unwrap().pop();
    assert!(matches!(asked, Some(Verb::ApplyConfig { expected: Some(ConfigVersion(2)), .. })));
}

/// An editor that needs nobody.
fn editor(folder: &std::path::Path, script: &str) -> String {
    let path = folder.join("editor");
    std::fs::write(&path, script).unwrap();
    format!("sh {}", path.display())
}

/// `words` splits at spaces, and an editor has arguments.
async fn edits(served: &Served, editor: String) -> (String, Result<(), Error>) {
    let paper = Paper::default();
    let mut terminal = paper.terminal(false);
    let client = Client::new(&[served.url()]).unwrap();
    let command = Command::Edit { editor: Some(editor) };
    let outcome = run(Arguments { command }, &client, &mut terminal, &Remembers::default()).await;
    (paper.text(), outcome)
}

#[tokio::test]
async fn what_is_running_is_edited_and_applied_on_the_version_that_was_read() {
    let served = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let (said, outcome) = edits(&served, editor(folder.path(), "sed -i s/shop/new/ $1")).await;
    assert!(outcome.is_ok() && said.starts_with("done"), "{said} {outcome:?}");
    let asked = served.fake.asked.lock().unwrap().pop();
    let text = "cluster = \"new\"\n".to_owned();
    assert_eq!(asked, Some(Verb::ApplyConfig { text, expected: Some(ConfigVersion(3)) }));
    let (said, outcome) = edits(&served, editor(folder.path(), "true")).await;
    assert!(outcome.is_ok());
    assert_eq!(said, "nothing was changed: version 3 goes on\n");
    let (_, outcome) = edits(&served, editor(folder.path(), "exit 7")).await;
    let Err(Error::Problem(problem)) = outcome else { panic!("{outcome:?}") };
    assert!(problem.because.contains("ended with exit status: 7"), "{problem}");
    let (_, outcome) = edits(&served, editor(folder.path(), "echo '# mine' >> $1; exit 7")).await;
    let Err(Error::Problem(problem)) = outcome else { panic!("{outcome:?}") };
    let (_, command) = problem.try_.split_once("tandem config apply ").unwrap();
    let (path, expected) = command.split_once(" --expect ").unwrap();
    assert_eq!((expected, mine(path).as_str()), ("3", "cluster = \"shop\"\n# mine\n"));
    assert_eq!(served.fake.asked.lock().unwrap().len(), 0, "nothing more was applied");
}

/// What stands in a file that was kept, which goes.
fn mine(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    text
}

#[tokio::test]
async fn what_was_written_is_kept_where_somebody_else_came_first() {
    let served = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let mine_is_refused = async |code| {
        let refusal = Refused { code, ..fake::refusal() };
        *served.fake.refuse.lock().unwrap() = Some(refusal);
        let editor = editor(folder.path(), "echo '# mine' >> $1");
        match edits(&served, editor).await.1 {
            Err(Error::Problem(problem)) => problem,
            outcome => panic!("{outcome:?}"),
        }
    };
    let problem = mine_is_refused(codes::CONFIG_NOT_VALID).await;
    let (_, command) = problem.try_.split_once("tandem config apply ").unwrap();
    assert_eq!(mine(command.strip_suffix(" --expect 3").unwrap()), "cluster = \"shop\"\n# mine\n");
    let problem = mine_is_refused(codes::CHANGED_MEANWHILE).await;
    let (_, path) = problem.try_.split_once("what you wrote, which is in ").unwrap();
    assert_eq!(mine(path), "cluster = \"shop\"\n# mine\n");
    assert!(
        !problem.try_.contains("config apply"),
        "that would take back what is there: {problem}"
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let served = serve().await;
    let problem = refused(&served, "config check /nowhere/tandem.toml").await;
    assert_eq!(problem.code, codes::CANNOT_READ_FILE);
    assert!(problem.what.contains("/nowhere/tandem.toml"), "{problem}");
}

#[tokio::test]
async fn a_file_in_another_encoding_is_told_where() {
    let served = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tandem.toml");
    std::fs::write(&file, b"cluster = \"shop\"\n# caf\xe9\n").unwrap();
    for verb in ["check", "apply", "show"] {
        let problem = refused(&served, &format!("config {verb} {}", file.display())).await;
        assert_eq!(problem.code, codes::CANNOT_READ_FILE);
        assert!(problem.because.contains("line 2, byte 6"), "{problem}");
        assert!(problem.try_.contains("UTF-8"), "{problem}");
    }
}
