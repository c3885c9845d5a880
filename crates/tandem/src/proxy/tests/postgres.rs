//! The door in front of PostgreSQL itself: drivers, psql, cancelled waits for standbys.

use super::fake::Fake;
use super::*;
use crate::runtime::supervisor::TaskKind;
use crate::service::postgres::Binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A server of its own, gone with the test.
struct Postgres {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

fn command(program: &str) -> Command {
    let bin = Binaries::folders().next().expect("PostgreSQL is installed");
    let mut command = Command::new(bin.join(program));
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(user) = server_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// PostgreSQL refuses to run as root.
fn server_user() -> Option<User> {
    Uid::effective().is_root().then(|| User::from_name("postgres").unwrap().unwrap())
}

impl Postgres {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        if let Some(user) = server_user() {
            chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        let data = dir.path().join("data");
        let made = command("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::run(&data, dir.path(), port);
        let postgres = Self { child, address: ([127, 0, 0, 1], port).into(), dir };
        let deadline = Instant::now() + LIMIT;
        while postgres.direct().await.is_err() {
            assert!(Instant::now() < deadline, "the server did not start");
            sleep(Duration::from_millis(20)).await;
        }
        postgres
    }

    fn run(data: &Path, run: &Path, port: u16) -> Child {
        command("postgres")
            .arg("-D")
            .arg(data)
            .arg("-k")
            .arg(run)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "shared_buffers=16MB"])
            .process_group(0)
            .spawn()
            .unwrap()
    }

    async fn direct(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect(&Supervisor::new(), self.address, "").await
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.signal(Signal::SIGQUIT);
        let _ = self.child.wait();
    }
}

async fn connect(
    supervisor: &Supervisor,
    address: SocketAddr,
    more: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let port = address.port();
    let text = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres {more}");
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await?;
    supervisor.spawn("client", TaskKind::Session, async move {
        let _ = connection.await;
    });
    Ok(client)
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", |code| code.code())
}

fn psql(address: SocketAddr, args: &[&str]) -> (bool, String) {
    let output = command("psql")
        .args(["-X", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
        .args(["-p", &address.port().to_string()])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// One server for all of it: starting one takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_and_psql_get_through_the_door() {
    let postgres = Postgres::start().await;
    let stage = Stage::writing(routed(1, postgres.address, "a"));
    everyday_work(&stage).await;
    cancel_reaches_the_right_backend(&stage, &postgres).await;
    durability_is_kept(&stage).await;
    h13_a_session_cannot_lower_it(&stage, &postgres).await;
    h13_what_came_before_stands(&stage, &postgres).await;
    h11_a_cancelled_wait_is_not_success(&stage, &postgres).await;
    a_restart_is_waited_for(&stage, postgres).await;
}

async fn everyday_work(stage: &Stage) {
    let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
    let text = "x".repeat(3_000_000);
    let row = client.query_one("SELECT length($1::text), $1", &[&text]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1).len()), (3_000_000, 3_000_000));
    let rows = client.simple_query("SELECT * FROM generate_series(1, 200000)").await.unwrap();
    let rows = rows.iter().filter(|row| matches!(row, SimpleQueryMessage::Row(_))).count();
    assert_eq!(rows, 200_000);
    let (done, text) = psql(stage.address(), &["-c", "SELECT 6 * 7"]);
    assert!(done && text.trim() == "42", "{text}");
    let both = ["-c", "CREATE TABLE t (id int)", "-c", "\\copy t from program 'seq 1 100000'"];
    let (done, text) = psql(stage.address(), &both);
    assert!(done && text.contains("COPY 100000"), "{text}");
}

async fn cancel_reaches_the_right_backend(stage: &Stage, postgres: &Postgres) {
    let admin = postgres.direct().await.unwrap();
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
    let token = client.cancel_token();
    let sleeping = client.simple_query("SELECT pg_sleep(60)");
    let cancelling = async {
        wait_for(&admin, asleep, "1").await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (slept, ()) = within(async { tokio::join!(sleeping, cancelling) }).await;
    assert_eq!(code(&slept.unwrap_err()), "57014");
    client.simple_query("SELECT 1").await.unwrap();
}

async fn durability_is_kept(stage: &Stage) {
    let lower = "options='-c synchronous_commit=off'";
    let refused = connect(&stage.supervisor, stage.address(), lower).await.unwrap_err();
    assert_eq!(code(&refused), "22023");
    let error = refused.as_db_error().unwrap();
    assert!(error.hint().unwrap().starts_with("Set synchronous_commit to on or remote_apply, or "));
}

async fn h13_a_session_cannot_lower_it(stage: &Stage, postgres: &Postgres) {
    let admin = postgres.direct().await.unwrap();
    admin.batch_execute("CREATE TABLE h13 (said text)").await.unwrap();
    for text in [
        "SET synchronous_commit = off",
        "INSERT INTO h13 VALUES ('with it'); SET LOCAL synchronous_commit TO local",
        "SET client_min_messages TO error",
        "SELECT set_config('synchronous_commit', 'off', false)",
        "ALTER ROLE CURRENT_USER SET synchronous_commit = off",
        "DO $$BEGIN SET LOCAL synchronous_commit = off; END$$",
        "CREATE FUNCTION weak() RETURNS int SET synchronous_commit = off RETURN 1",
    ] {
        for extended in [false, true] {
            let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
            client.batch_execute("BEGIN; INSERT INTO h13 VALUES ('before')").await.unwrap();
            let refused = if extended {
                client.execute(text, &[]).await.map(|_| ()).unwrap_err()
            } else {
                client.batch_execute(text).await.unwrap_err()
            };
            assert_eq!(code(&refused), "22023", "{text}: {refused:?}");
            assert!(client.simple_query("SELECT 1").await.is_err(), "the session is over");
        }
    }
    let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
    let set = "SELECT set_config($1, $2, false)";
    client.query(set, &[&"application_name", &"x"]).await.unwrap();
    let refused = client.query(set, &[&"synchronous_commit", &"off"]).await.unwrap_err();
    assert_eq!(code(&refused), "22023", "{refused:?}");
    let traces = "SELECT (SELECT count(*) FROM h13) + (SELECT count(*) FROM pg_db_role_setting) \
                  + (SELECT count(*) FROM pg_proc WHERE proname = 'weak')";
    wait_for(&admin, traces, "0").await;
    let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
    for text in [
        "SET synchronous_commit = remote_apply",
        "SET synchronous_commit TO DEFAULT",
        "SET client_min_messages = 'warning'",
        "SELECT set_config('synchronous_commit', 'on', false)",
        "INSERT INTO h13 VALUES ('SET synchronous_commit = off')",
        "INSERT INTO h13 VALUES (E'a' -- '\n '\\'; SET synchronous_commit = off')",
        "DELETE FROM h13 WHERE said LIKE '%synchronous_commit = off%'",
        "DO $$BEGIN SET LOCAL client_min_messages = notice; END$$",
        "SET U&\"synchronous_commit\" = U&'on'",
    ] {
        client.batch_execute(text).await.unwrap();
    }
    wait_for(&client, "SHOW synchronous_commit", "on").await;
    let reading = "SELECT setting FROM pg_settings WHERE name = $1";
    let row = client.query_one(reading, &[&"synchronous_commit"]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "on");
}

/// Bytes, because drivers hide what they got before an error.
async fn h13_what_came_before_stands(stage: &Stage, postgres: &Postgres) {
    let lower = query("SET synchronous_commit = off");
    let parse = |text: &str| message(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let bind = message(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = message(b'E', b"\0\0\0\0\0");
    let extended = |text: &str| [parse(text).as_slice(), &bind, &execute].concat();
    let asked = startup(&[("user", "postgres"), ("database", "postgres")]);

    let mut client = stage.client().await;
    client.send(&asked).await;
    client.until_ready().await.unwrap();
    let slow = query("SELECT pg_sleep(0.2); INSERT INTO h13 VALUES ('simple')");
    let synced = [extended("INSERT INTO h13 VALUES ('synced')"), message(b'S', b"")].concat();
    client.send(&[slow.as_slice(), &synced, &lower].concat()).await;
    assert_eq!(client.until_ready().await.unwrap(), b"TDCCZ");
    assert_eq!(client.until_ready().await.unwrap(), b"12CZ");
    assert_eq!(client.end().await, "22023");

    // Without a Sync nothing is committed; what was answered is passed on all the same.
    let mut client = stage.client().await;
    client.send(&asked).await;
    client.until_ready().await.unwrap();
    let open = extended("INSERT INTO h13 VALUES ('open')");
    client.send(&[open.as_slice(), &parse("SET synchronous_commit = off")].concat()).await;
    for kind in *b"12C" {
        assert_eq!(client.message().await.unwrap().0, kind);
    }
    assert_eq!(client.end().await, "40003");
    let admin = postgres.direct().await.unwrap();
    let said = "SELECT string_agg(said, ' ' ORDER BY said) FROM h13";
    wait_for(&admin, said, "simple synced").await;
}

async fn h11_a_cancelled_wait_is_not_success(stage: &Stage, postgres: &Postgres) {
    let admin = postgres.direct().await.unwrap();
    admin.batch_execute("CREATE TABLE h11 (id int); CREATE TABLE waits (id int)").await.unwrap();
    admin
        .batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'")
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    wait_for(&admin, "SHOW synchronous_standby_names", "ANY 1 (nobody)").await;
    commits_wait(&admin, postgres).await;
    let how = ["pg_cancel_backend", "pg_terminate_backend"];
    for (round, how) in how.into_iter().enumerate() {
        for extended in [false, true] {
            let client = connect(&stage.supervisor, stage.address(), "").await.unwrap();
            let commit = async {
                if extended {
                    client.execute("INSERT INTO h11 VALUES (1)", &[]).await.map(|_| ())
                } else {
                    client.batch_execute("INSERT INTO h11 VALUES (1)").await
                }
            };
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            let stop =
                format!("SELECT {how}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
            let breaking = async {
                wait_for(&admin, waiting, "1").await;
                admin.simple_query(&stop).await.unwrap();
            };
            let (result, ()) = within(async { tokio::join!(commit, breaking) }).await;
            let error = result.expect_err("a local commit was shown as success");
            assert_eq!(code(&error), "40003", "{how} extended={extended}: {error:?}");
            let there = (round * 2 + usize::from(extended) + 1).to_string();
            wait_for(&admin, "SELECT count(*) FROM h11", &there).await;
        }
    }
    assert_eq!(stage.door.counters().local_commits, 4);
    admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Sessions know a setting before the checkpointer has put it where commits look.
async fn commits_wait(admin: &tokio_postgres::Client, postgres: &Postgres) {
    let prober = postgres.direct().await.unwrap();
    let stop = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let waits = async || {
        let mut has_waited = false;
        let insert = prober.batch_execute("INSERT INTO waits VALUES (1)");
        tokio::pin!(insert);
        loop {
            tokio::select! {
                done = &mut insert => {
                    done.unwrap();
                    return has_waited;
                }
                () = sleep(Duration::from_millis(20)) => {
                    let rows = admin.simple_query(stop).await.unwrap();
                    has_waited |= rows.iter().any(|it| matches!(it, SimpleQueryMessage::Row(_)));
                }
            }
        }
    };
    within(async { while !waits().await {} }).await;
}

async fn wait_for(client: &tokio_postgres::Client, query: &str, value: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let rows = client.simple_query(query).await.unwrap();
        let found = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if found == Some(value) {
            return;
        }
        assert!(Instant::now() < deadline, "{query} is {found:?}, not {value}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn a_restart_is_waited_for(stage: &Stage, mut postgres: Postgres) {
    let idle = connect(&stage.supervisor, stage.address(), "").await.unwrap();
    postgres.signal(Signal::SIGINT);
    postgres.child.wait().unwrap();
    assert!(idle.simple_query("SELECT 1").await.is_err());
    let (retried, held) = (stage.door.counters().retried, stage.door.counters().held);
    assert_eq!(held, 0);
    let address = postgres.address;
    let connecting = connect(&stage.supervisor, stage.address(), "");
    let restarting = async {
        until(|| stage.door.counters().retried > retried).await;
        let data = postgres.dir.path().join("data");
        postgres.child = Postgres::run(&data, postgres.dir.path(), address.port());
    };
    let (client, ()) = within(async { tokio::join!(connecting, restarting) }).await;
    let client = client.unwrap();
    let (done, text) = psql(stage.address(), &["-c", "SELECT 1"]);
    assert!(done, "{text}");
    // A switchover to nobody: an open session of psql's kind is told and closed.
    stage.set(Routes { term: Term(2), ..Routes::default() });
    let error = within(async {
        loop {
            if let Err(error) = client.simple_query("SELECT 1").await {
                return error;
            }
        }
    })
    .await;
    assert!(error.is_closed() || ["57P01", "40003"].contains(&code(&error)), "{error:?}");
}

/// A first number for what the door adds, without a server's work: see the module's plan for the
/// real comparison. `cargo test --release -p tandem --lib round_trips -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, does not check"]
async fn round_trips() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let stage = Stage::writing(routed(1, fake.address, "a"));
    for (name, address) in [("direct", fake.address), ("door", stage.address())] {
        let mut client = Client(TcpStream::connect(address).await.unwrap());
        client.0.set_nodelay(true).unwrap();
        client.send(&startup(&[("user", "me")])).await;
        client.until_ready().await.unwrap();
        let since = Instant::now();
        let mut answer = [0; 20];
        for _ in 0..20_000 {
            client.send(&query("select")).await;
            client.0.read_exact(&mut answer).await.unwrap();
        }
        println!("{name}: {:?} per round trip", since.elapsed() / 20_000);
    }
}
