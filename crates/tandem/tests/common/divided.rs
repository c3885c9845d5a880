//! What a worker of divided work asks its node, over the node's API.

use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const AGAIN: Duration = Duration::from_millis(10);

/// What Tandem tells a command of where it runs.
pub fn said(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Hears for ever of the node's partitions, and up to which epoch the work was divided otherwise.
/// `hear` says which it let go: it works on them under that epoch never again. `done` comes once
/// that was said.
pub fn follow(mut hear: impl FnMut(&[Told], u64) -> Vec<(u64, u64)>, mut done: impl FnMut()) -> ! {
    let mut version = 0;
    let path = format!("/v1/services/{}/partitions", said("TANDEM_SERVICE"));
    loop {
        let asked = ask("GET", &format!("{path}?after={version}&wait=5s"), "");
        let Some(told) = asked.filter(|told| told["version"].as_u64() > Some(version)) else {
            std::thread::sleep(AGAIN);
            continue;
        };
        version = told["version"].as_u64().unwrap();
        let all: Vec<Told> =
            told["partitions"].as_array().unwrap().iter().map(Told::parse).collect();
        for (id, epoch) in hear(&all, told["before"].as_u64().unwrap()) {
            let body = format!("{{\"epoch\":{epoch}}}");
            let answer = ask("POST", &format!("{path}/{id}/release"), &body);
            println!("released {id} of epoch {epoch}: {answer:?}");
        }
        done();
    }
}

/// What it is told of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub id: u64,
    pub epoch: u64,
    /// Whether it is to be let go.
    pub releasing: bool,
}

impl Told {
    fn parse(value: &Value) -> Self {
        let releasing = match value["state"].as_str().unwrap() {
            "owned" => false,
            "releasing" => true,
            other => panic!("{other}"),
        };
        let number = |name: &str| value[name].as_u64().unwrap();
        Self { id: number("id"), epoch: number("epoch"), releasing }
    }
}

fn ask(method: &str, path: &str, body: &str) -> Option<Value> {
    let api = said("TANDEM_API");
    let place = api.strip_prefix("http://").unwrap_or_default();
    let mut stream = TcpStream::connect(place).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok())?
}
