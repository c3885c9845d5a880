//! The keeper with a real PostgreSQL, whose backends are each in a process group of their own.

use crate::world::*;
use rustix::process::Signal as Posix;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tandem::fence::client::KeeperEvent;
use tandem::fence::protocol::{Cause, How, Lease, Signal, StartSpec};
use tandem::runtime::{clock, process};
use tandem::service::postgres::Binaries;

/// A program of PostgreSQL, as a node would find it.
fn path(program: &str) -> PathBuf {
    Binaries::folders().next().expect("PostgreSQL is installed").join(program)
}

fn bin(program: &str) -> Command {
    let mut command = Command::new(path(program));
    if let Some(user) = postgres_user() {
        command.uid(user.uid).gid(user.gid);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

struct Postgres {
    world: World,
    data: PathBuf,
}

/// Sessions end with the test, whatever happens.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Postgres {
    fn new() -> Self {
        let world = World::new();
        let data = world.dir.path().canonicalize().unwrap().join("data");
        let mut initdb = bin("initdb");
        initdb.args(["--no-sync", "--no-instructions", "-A", "trust", "-D"]).arg(&data);
        assert!(initdb.current_dir(world.dir.path()).status().unwrap().success());
        Self { world, data }
    }

    fn spec(&self, lease: Lease) -> StartSpec {
        let data = self.data.display().to_string();
        let socket = format!("unix_socket_directories={}", self.world.dir.path().display());
        let program = path("postgres").display().to_string();
        let settings = ["listen_addresses=", &socket, "fsync=off", "restart_after_crash=off"];
        let mut argv = vec![program.as_str(), "-D", &data];
        settings.iter().for_each(|setting| argv.extend(["-c", *setting]));
        self.world.spec(&argv, lease)
    }

    fn psql(&self, sql: &str) -> Command {
        let mut psql = bin("psql");
        psql.args(["-X", "-d", "postgres", "-U"]);
        psql.arg(postgres_user().map_or_else(
            || nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name,
            |_| "postgres".to_owned(),
        ));
        psql.arg("-h").arg(self.world.dir.path()).args(["-c", sql]);
        psql
    }

    /// Starts it, and a session in the middle of a statement; returns every process of it.
    async fn start(&self, it: &mut Attached) -> (i32, Vec<i32>, Session) {
        let pid = it.start(self.spec(lease(600_000))).await;
        let log = || std::fs::read_to_string(self.world.log()).unwrap_or_default();
        let up = || (self.psql("select 1").status().unwrap().success(), process::is_alive(pid));
        let (up, _) = until(up, |(up, alive)| *up || !alive).await;
        assert!(up, "{}", log());
        let busy = "do $$ begin loop perform sqrt(2); end loop; end $$";
        let session = Session(self.psql(busy).spawn().unwrap());
        let running = "do $$ begin if not exists (select from pg_stat_activity where \
                       state = 'active' and query like '%sqrt(2)%' and pid <> pg_backend_pid()) \
                       then raise 'not yet'; end if; end $$";
        let running = ["-v", "ON_ERROR_STOP=1"].iter().fold(self.psql(running), |mut psql, arg| {
            psql.arg(arg);
            psql
        });
        let running = std::cell::RefCell::new(running);
        until(|| running.borrow_mut().status().unwrap().success(), |yes| *yes).await;
        let mut pids = process::descendants(pid);
        pids.push(pid);
        assert!(pids.len() >= 7, "{pids:?}");
        (pid, pids, session)
    }

    fn nothing_left(&self) {
        assert_eq!(process::in_directory(&self.data), [0; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_is_gone_whole_and_in_time() {
    let mut pg = Postgres::new();
    let mut it = pg.world.attach().await;

    // The lease passes while a session works.
    let (_, pids, session) = pg.start(&mut it).await;
    let end_of_lease = after(Duration::from_millis(100));
    it.keeper.limit(end_of_lease).await.unwrap();
    let end = it.exited().await;
    assert_eq!((end.how, end.cause), (How::Signal(9), Cause::LeaseExpired));
    assert_eq!(alive(&pids), [0; 0]);
    pg.nothing_left();
    drop(session);
    println!("lease, {} processes: gone after {:?}", pids.len(), end.gone.since(end_of_lease));

    // The same with a postmaster that is stopped, as in a hang.
    let (pid, pids, session) = pg.start(&mut it).await;
    signal(pid, Posix::STOP);
    until_stopped(pid).await;
    let end_of_lease = after(Duration::from_millis(100));
    it.keeper.limit(end_of_lease).await.unwrap();
    let end = it.exited().await;
    assert_eq!(end.cause, Cause::LeaseExpired);
    assert_eq!(alive(&pids), [0; 0]);
    pg.nothing_left();
    drop(session);
    println!("lease, stopped postmaster: gone after {:?}", end.gone.since(end_of_lease));

    // H2: the postmaster is killed by somebody; a working backend would go on by itself.
    let (pid, pids, session) = pg.start(&mut it).await;
    let killed = clock::now();
    signal(pid, Posix::KILL);
    let end = it.exited().await;
    let told = clock::now();
    assert_eq!((end.how, end.cause), (How::Signal(9), Cause::ByItself));
    assert_eq!(alive(&pids), [0; 0]);
    pg.nothing_left();
    drop(session);
    println!("postmaster killed: told after {:?}, nothing left", told.since(killed));

    // H3: the keeper is killed.
    let (_, pids, session) = pg.start(&mut it).await;
    signal(it.status.keeper, Posix::KILL);
    let killed = clock::now();
    assert_eq!(it.event().await, KeeperEvent::KeeperGone);
    until_dead(pids).await;
    pg.nothing_left();
    drop(session);
    println!("keeper killed: PostgreSQL gone after {:?}", clock::now().since(killed));

    // The same with a stopped postmaster, which cannot obey its last signal: two faults at once.
    let mut it = pg.world.attach().await;
    let (pid, pids, session) = pg.start(&mut it).await;
    signal(pid, Posix::STOP);
    until_stopped(pid).await;
    signal(it.status.keeper, Posix::KILL);
    assert_eq!(it.event().await, KeeperEvent::KeeperGone);
    let killed = process::kill_in_directory(&pg.data);
    println!("keeper killed, postmaster stopped: {} processes swept", killed.len());
    until_dead(pids).await;
    // As long as init has not reaped it, its postmaster.pid keeps PostgreSQL from starting.
    until(|| process::read(pid), Option::is_none).await;
    pg.nothing_left();
    drop(session);

    // A new keeper; an orderly stop.
    let mut it = pg.world.attach().await;
    let (_, _, session) = pg.start(&mut it).await;
    it.keeper.signal(Signal::Fast).await.unwrap();
    let end = it.exited().await;
    assert!(end.is_clean() && end.cause == Cause::Asked, "{end:?}");
    pg.nothing_left();
    drop(session);
}
