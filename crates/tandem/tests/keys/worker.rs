//! The command that the test has run: an HTTP server that works on the partitions that its node's
//! API tells it, turns away what is not its own, and writes all that it does into a ledger that
//! all copies share.

use crate::divided::{self, Told, said};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a request takes, so that there are always some under way.
const WORK: Duration = Duration::from_millis(5);
/// How long it takes to take over what it is given. Doors know of it before, and are turned away.
const TAKES_OVER: Duration = Duration::from_millis(150);

/// What it owns. While a request is worked on nothing is released.
type Owned = Arc<Mutex<Own>>;

/// What a copy may work on.
#[derive(Default)]
struct Own {
    /// Under which epoch.
    all: BTreeMap<u64, u64>,
    /// What is sent under that epoch, or a smaller one, was counted by what is over.
    before: u64,
}

/// As the documents say it, and not as Tandem computes it: FNV-1a, then SplitMix64's finalizer.
pub fn partition(key: &str, partitions: u64) -> u64 {
    let fnv = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mixed = fnv.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % partitions
}

#[test]
#[ignore = "the command that the other test has run"]
fn serve() {
    let owned = Owned::default();
    let place = format!("{}:{}", said("TANDEM_BIND"), said("TANDEM_PORT"));
    let listener = TcpListener::bind(place).unwrap();
    let ledger = OpenOptions::new().append(true).create(true).open(said("LEDGER")).unwrap();
    let ledger = Arc::new(Mutex::new(ledger));
    let follows = owned.clone();
    std::thread::spawn(move || follow(&follows));
    for client in listener.incoming().flatten() {
        let (owned, ledger) = (owned.clone(), ledger.clone());
        std::thread::spawn(move || answer(client, &owned, &ledger));
    }
}

/// Learns what it owns, and lets go the rest.
fn follow(owned: &Owned) {
    let next = RefCell::new(Own::default());
    let hear = |told: &[Told], before: u64| {
        let which = |releasing: bool| {
            let of = told.iter().filter(move |it| it.releasing == releasing);
            of.map(|it| (it.id, it.epoch))
        };
        let now: BTreeMap<u64, u64> = which(false).collect();
        // What it does not own any more it lets go of first.
        owned.lock().unwrap().all.retain(|id, epoch| now.get(id) == Some(epoch));
        *next.borrow_mut() = Own { all: now, before };
        which(true).collect()
    };
    divided::follow(hear, || {
        std::thread::sleep(TAKES_OVER);
        *owned.lock().unwrap() = next.take();
    });
}

/// What the door says of a request, and its key.
#[derive(Default)]
struct Asked {
    partition: Option<u64>,
    epoch: Option<u64>,
    key: String,
    body: String,
    /// Something that only the door may say, or that decides, is there more than once.
    is_twofold: bool,
}

/// Requests on one connection, to its end.
fn answer(client: TcpStream, owned: &Owned, ledger: &Mutex<File>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut writer = client;
    loop {
        let asked = read(&mut reader)?;
        let (status, body) = work(&asked, owned, ledger);
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let (mut asked, mut length) = (Asked::default(), 0);
    let mut seen = BTreeSet::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        let name = name.to_lowercase();
        if matches!(name.as_str(), "tandem-partition" | "tandem-epoch" | "x-shop") {
            asked.is_twofold |= !seen.insert(name.clone());
        }
        match name.as_str() {
            "tandem-partition" => asked.partition = value.parse().ok(),
            "tandem-epoch" => asked.epoch = value.parse().ok(),
            "x-shop" => asked.key = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).ok()?;
    Some(asked)
}

fn work(asked: &Asked, owned: &Owned, ledger: &Mutex<File>) -> (&'static str, String) {
    if asked.is_twofold {
        return ("500 Strange", "the door passed on what a client said in its place".to_owned());
    }
    let count = said("TANDEM_PARTITIONS").parse().unwrap_or(0);
    let (Some(id), Some(epoch)) = (asked.partition, asked.epoch) else {
        return ("500 Strange", "the door does not say what it is".to_owned());
    };
    let owned = owned.lock().unwrap();
    // It did nothing, and says so. First of what another table led here: the key of that is
    // counted otherwise.
    let misdirected = ("421 Misdirected Request", String::new());
    if epoch <= owned.before {
        return misdirected;
    }
    if partition(&asked.key, count) != id {
        return ("500 Strange", format!("{} is none of {id}", asked.key));
    }
    let Some(own) = owned.all.get(&id).filter(|own| **own >= epoch) else { return misdirected };
    std::thread::sleep(WORK);
    let (node, pid) = (said("TANDEM_NODE"), std::process::id());
    let line = format!("{id} {own} {node} {pid} {}\n", asked.body);
    ledger.lock().unwrap().write_all(line.as_bytes()).unwrap();
    ("200 OK", format!("{node} {id}"))
}
