//! The ledger that all copies write to, and the command that does.

use crate::machines::Machines;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tandem::runtime::{clock, process};

const LIMIT: Duration = Duration::from_secs(60);
/// For a request that is under way while others come and go.
const SLOW: Duration = Duration::from_millis(300);

/// Of the patient one.
pub const PATIENT_FILES: u64 = 321;

/// Whom the patient one runs as: only root can choose another.
pub fn patients_user() -> User {
    let me = User::from_uid(geteuid()).unwrap().unwrap();
    if me.uid.is_root() { User::from_name("nobody").unwrap().unwrap() } else { me }
}

/// The command: writes a line every few milliseconds, and answers who it is at its port.
#[test]
#[ignore = "the command that the other test has run"]
fn job() {
    let said = |name: &str| std::env::var(name).unwrap();
    let (path, node, term) = (said("LEDGER"), said("TANDEM_NODE"), said("TANDEM_TERM"));
    let port: u16 = said("TANDEM_PORT").parse().unwrap();
    let listener = TcpListener::bind((said("TANDEM_BIND").as_str(), port)).unwrap();
    let name = node.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || serve(client, &name));
        }
    });
    let mut ledger = fs::OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let fails = || fs::read_to_string(format!("{path}.fails")).is_ok_and(|failing| failing == node);
    let pid = std::process::id();
    while !fails() {
        let ms = clock::now().0 / 1000;
        ledger.write_all(format!("runs {node} {term} {pid} {ms}\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says who it is: at once, after a while, or never.
fn serve(mut client: TcpStream, name: &str) {
    let mut asked = [0; 100];
    let length = client.read(&mut asked).unwrap_or(0);
    match &asked[..length] {
        b"slow\n" => std::thread::sleep(SLOW),
        b"never\n" => {
            // Heard, and not over.
            let _ = client.write_all(name.as_bytes());
            std::thread::sleep(LIMIT);
        }
        _ => {}
    }
    let _ = client.write_all(name.as_bytes());
}

/// One line of a running copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub node: String,
    pub term: u64,
    pub pid: i32,
    pub ms: u64,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let ["runs", node, term, pid, ms] = words[..] else { return None };
        let (term, pid, ms) = (term.parse().ok()?, pid.parse().ok()?, ms.parse().ok()?);
        Some(Self { node: node.to_owned(), term, pid, ms })
    }

    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }
}

/// Of this machine; that no other test has it, each node's own loopback address makes likely.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Ledger {
    path: PathBuf,
}

impl Ledger {
    pub fn new(machines: &Machines) -> Self {
        let root = PathBuf::from(machines.config_path());
        let root = root.parent().unwrap();
        Self { path: root.join("ledger") }
    }

    /// The service, as its owner writes it.
    pub fn service(&self) -> String {
        let job = std::env::current_exe().unwrap();
        let (job, ledger) = (job.display(), self.path.display());
        // The first number of that file counts seconds of the same clock as the lines do.
        let hook = |name: &str| {
            format!(
                "[\"sh\", \"-c\", \"read up rest < /proc/uptime; \
                 echo {name} $TANDEM_NODE $TANDEM_TERM $up >> {ledger}\"]"
            )
        };
        format!(
            "\n[services.jobs]\nkind = \"command\"\nclustering = \"active-passive\"\n\
             replication = \"none\"\n\
             command = [\"{job}\", \"--ignored\", \"--exact\", \"ledger::job\"]\n\
             env = {{ LEDGER = \"{ledger}\" }}\n\
             listen = {}\nport = {}\nhealth = {{ tcp = true }}\n\
             on_start = {}\non_stop = {}\n\
             \n[services.front]\nkind = \"tcp\"\nclustering = \"load-balanced\"\n\
             replication = \"none\"\nlisten = {}\nupstreams = [{{ service = \"jobs\" }}]\n",
            free_port(),
            free_port(),
            hook("on_start"),
            hook("on_stop"),
            free_port()
        )
    }

    /// Those that are never well: a hook hangs, a check fails, a check hangs, the command goes to
    /// the background; and one whose hook takes longer than three leases.
    pub fn bad_services(&self) -> String {
        let ledger = self.path.display();
        let service = |name: &str, keys: &str| {
            format!(
                "\n[services.{name}]\nkind = \"command\"\nclustering = \"active-passive\"\n\
                 replication = \"none\"\n{keys}\n"
            )
        };
        let hangs =
            "command = [\"sleep\", \"600\"]\non_start = [\"sleep\", \"601\"]\nhook_max = \"300ms\"";
        let sick = format!(
            "command = [\"sh\", \"-c\", \"echo sick $$ >> {ledger}.sick; exec sleep 600\"]\n\
             health = {{ exec = [\"false\"], interval = \"100ms\", grace = \"0s\" }}"
        );
        let mute = "command = [\"sleep\", \"600\"]\nhealth = { exec = [\"sleep\", \"602\"], \
                    interval = \"100ms\", timeout = \"200ms\", grace = \"0s\" }";
        let forks = format!(
            "command = [\"sh\", \"-c\", \"sleep 603 & echo $! >> {ledger}.forks; exit 0\"]"
        );
        let slow = "command = [\"sleep\", \"600\"]\non_start = [\"sleep\", \"3\"]";
        [("hangs", hangs), ("sick", &sick), ("mute", mute), ("forks", &forks), ("slow", slow)]
            .map(|(name, keys)| service(name, keys))
            .concat()
    }

    /// One that needs three leases to end, and has a hook after that.
    pub fn saves(&self) -> String {
        let ledger = self.beside("saves").display().to_string();
        format!(
            "\n[services.saves]\nkind = \"command\"\nclustering = \"active-passive\"\n\
             replication = \"none\"\n\
             command = [\"sh\", \"-c\", \"trap 'sleep 3; echo saved >> {ledger}; exit 0' TERM; \
             echo began >> {ledger}; while :; do sleep 0.1; done\"]\n\
             on_stop = [\"sh\", \"-c\", \"echo closed >> {ledger}\"]\nstop_max = \"20s\"\n"
        )
    }

    /// What that one did.
    pub fn saved(&self) -> Vec<String> {
        let text = fs::read_to_string(self.beside("saves")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// One whose lease is longer than a restart of a daemon takes; of another user where that is
    /// possible. Only its own `stop` ends it before `stop_max`.
    pub fn patient(&self) -> String {
        let ledger = self.beside("patient");
        fs::write(&ledger, "").unwrap();
        fs::set_permissions(&ledger, fs::Permissions::from_mode(0o666)).unwrap();
        let (ledger, user) = (ledger.display(), patients_user().name);
        format!(
            "\n[services.patient]\nkind = \"command\"\nclustering = \"active-passive\"\n\
             replication = \"none\"\nlease = \"10s\"\nrun_as = \"{user}\"\n\
             command = [\"sh\", \"-c\", \"trap '' TERM; echo $$ > pid; \
             echo runs $TANDEM_NODE $TANDEM_TERM $$ 0 >> {ledger}; \
             echo patient is up; echo patient complains >&2; exec sleep 600\"]\n\
             stop = [\"sh\", \"-c\", \"echo stops $TANDEM_NODE $(id -un) >> {ledger}; \
             kill -KILL $(cat pid)\"]\nstop_max = \"5s\"\n\
             limits = {{ nofile = {PATIENT_FILES}, core = 0 }}\n"
        )
    }

    fn beside(&self, what: &str) -> PathBuf {
        PathBuf::from(format!("{}.{what}", self.path.display()))
    }

    /// Each end of that one by its own `stop`: on which node, by whom.
    pub fn patient_stops(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.beside("patient")).unwrap_or_default();
        let parse = |line: &str| {
            let (node, by) = line.strip_prefix("stops ")?.split_once(' ')?;
            Some((node.to_owned(), by.to_owned()))
        };
        text.lines().filter_map(parse).collect()
    }

    /// Each start of that one.
    pub fn patient_starts(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.beside("patient"));
        text.unwrap_or_default().lines().filter_map(Line::parse).collect()
    }

    /// How many of those that went to the background are alive.
    pub fn left_behind(&self) -> usize {
        let text = fs::read_to_string(format!("{}.forks", self.path.display()));
        let pids = text.unwrap_or_default();
        let pids = pids.lines().filter_map(|line| line.parse().ok());
        pids.filter(|pid| process::is_alive(*pid)).count()
    }

    /// How often the sick one was started.
    pub fn sick_starts(&self) -> usize {
        let text = fs::read_to_string(format!("{}.sick", self.path.display()));
        text.unwrap_or_default().lines().count()
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Line> {
        self.text().lines().filter_map(Line::parse).collect()
    }

    pub fn newest(&self) -> Line {
        self.lines().pop().unwrap()
    }

    /// The last line of that copy.
    pub fn last_of(&self, copy: &Line) -> Line {
        self.lines().into_iter().rfind(|line| line.pid == copy.pid).unwrap()
    }

    /// When the hook after an end on that node ran last: the copy was gone by then.
    pub fn closed_ms(&self, node: &str) -> u64 {
        let text = self.text();
        let is_of = |line: &&str| line.starts_with(&format!("on_stop {node} "));
        let line = text.lines().rfind(is_of).unwrap();
        let seconds: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        Duration::from_secs_f64(seconds).as_millis().try_into().unwrap()
    }

    /// Where it ends by itself from now on.
    pub fn fail_on(&self, node: &str) {
        fs::write(format!("{}.fails", self.path.display()), node).unwrap();
    }

    /// Waits for a line after this one that is so.
    pub async fn grows(&self, after: &Line, is_so: impl Fn(&Line) -> bool) -> Line {
        self.grows_within(LIMIT, after, is_so).await
    }

    /// The same, for what takes longer.
    pub async fn grows_within(
        &self,
        within: Duration,
        after: &Line,
        is_so: impl Fn(&Line) -> bool,
    ) -> Line {
        let limit = Instant::now() + within;
        loop {
            let found = self.lines().into_iter().find(|it| it.ms > after.ms && is_so(it));
            if let Some(line) = found {
                return line;
            }
            assert!(Instant::now() < limit, "the ledger ends with {:?}", self.lines().pop());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A copy that another one followed writes nothing any more.
    pub fn no_two_at_once(&self) {
        let (mut current, mut gone) = (Line::default(), BTreeSet::new());
        for line in self.lines() {
            if line.pid != current.pid {
                gone.insert(current.pid);
                current = line.clone();
            }
            assert!(!gone.contains(&line.pid), "{line:?} after another copy");
        }
        println!("{} copies, one after the other", gone.len());
    }
}
