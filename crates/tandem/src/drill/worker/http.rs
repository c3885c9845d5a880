//! Talks HTTP as a small server that writes down every request before it answers.
//! In: `/r/ID` and `/r/SESSION/ID` are worked on, `/healthz` is answered, `/drill/HOW` says how to
//! behave from now on.
//! Where work is divided, one is worked on only if its partition is the copy's own, else it gets
//! 421 and nothing is done.
//! Out: `NAME ID`, and the ledger's lines.
//! Tested by: below.

use super::divided::Works;
use super::ledger::{Does, Ledger};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::part;
use tokio::net::{TcpListener, TcpStream};

/// Slower than anything nearby, faster than any limit: nobody fails, everybody waits.
const SLOW: Duration = Duration::from_millis(300);
/// Slower than a check allows.
const STALL: Duration = Duration::from_secs(1);
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Behaviour {
    /// At once, with 200.
    Well,
    /// After a while.
    Slow,
    /// With 500; what it says of its health is that all is well.
    Lie,
    /// So late that its checks fail too.
    Stall,
    /// With 500, its checks too.
    Fail,
}

impl Behaviour {
    const ALL: [Self; 5] = [Self::Well, Self::Slow, Self::Lie, Self::Stall, Self::Fail];

    /// Its word in a path.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Slow => "slow",
            Self::Lie => "lie",
            Self::Stall => "stall",
            Self::Fail => "fail",
        }
    }
}

impl FromStr for Behaviour {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|it| it.word() == word).ok_or(())
    }
}

/// What a copy may work on, of so many partitions.
#[derive(Clone, Debug)]
pub struct Divided {
    /// What it owns.
    pub works: Arc<Works>,
    /// How many there are.
    pub count: u32,
}

#[derive(Debug)]
struct Server {
    ledger: Arc<Ledger>,
    divided: Option<Divided>,
    behaviour: AtomicU8,
}

/// Answers until `tasks` stop.
pub async fn serve(
    listener: TcpListener,
    ledger: Arc<Ledger>,
    divided: Option<Divided>,
    tasks: Supervisor,
) {
    let behaviour = AtomicU8::new(Behaviour::Well as u8);
    let server = Arc::new(Server { ledger, divided, behaviour });
    let stop = tasks.stopping();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (server, stop) = (Arc::clone(&server), stop.clone());
        tasks.spawn("drill request", TaskKind::Session, async move {
            tokio::select! { () = stop.cancelled() => {}, () = converse(stream, server) => {} }
        });
    }
}

async fn converse(stream: TcpStream, server: Arc<Server>) {
    let _ = stream.set_nodelay(true);
    let answering = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { server.answer(request).await }
    });
    // A client that leaves is no news.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answering)
        .await;
}

impl Server {
    fn behaviour(&self) -> Behaviour {
        let now = self.behaviour.load(Ordering::Relaxed);
        Behaviour::ALL.into_iter().find(|it| *it as u8 == now).unwrap_or(Behaviour::Well)
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        let fields = request.headers().clone();
        let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
        body.map_err(io::Error::other)?;
        let name = self.ledger.name();
        if let Some(how) = path.strip_prefix("/drill/") {
            let Ok(how) = how.parse::<Behaviour>() else {
                return Ok(respond(StatusCode::NOT_FOUND, "no such behaviour\n".into()));
            };
            self.behaviour.store(how as u8, Ordering::Relaxed);
            return Ok(respond(StatusCode::OK, format!("{name} {}\n", how.word())));
        }
        let asked = path.strip_prefix("/r/");
        match self.behaviour() {
            Behaviour::Stall => tokio::time::sleep(STALL).await,
            Behaviour::Slow if asked.is_some() => tokio::time::sleep(SLOW).await,
            Behaviour::Lie if asked.is_none() => {}
            Behaviour::Fail | Behaviour::Lie => {
                let text = "told to fail\n".to_owned();
                return Ok(respond(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
            Behaviour::Well | Behaviour::Slow => {}
        }
        let Some(asked) = asked else {
            return Ok(respond(StatusCode::OK, format!("{name} well\n")));
        };
        let (key, id) = asked.split_once('/').unwrap_or((asked, asked));
        Ok(match self.work((key, id), &fields)? {
            StatusCode::OK => respond(StatusCode::OK, format!("{name} {id}\n")),
            refused => respond(refused, format!("{name} did nothing\n")),
        })
    }
}

impl Server {
    /// Works on a request, if it is the copy's to work on.
    fn work(&self, (key, id): (&str, &str), fields: &HeaderMap) -> io::Result<StatusCode> {
        let Some(Divided { works, count }) = &self.divided else {
            self.ledger.write(&[Does::Request(id.to_owned())])?;
            return Ok(StatusCode::OK);
        };
        let number = |name: &str| fields.get(name)?.to_str().ok()?.parse().ok();
        let Some((of, epoch)) = number("tandem-partition").zip(number("tandem-epoch")) else {
            return Ok(StatusCode::BAD_REQUEST);
        };
        // It counts otherwise, and so would be told that the client is wrong.
        if works.is_over(epoch) {
            return Ok(StatusCode::MISDIRECTED_REQUEST);
        }
        // What the door takes for the key may not be another one than this.
        let own = part(key.as_bytes(), *count);
        if of != u64::from(own) {
            return Ok(StatusCode::BAD_REQUEST);
        }
        let worked = works.serve((own, epoch), id, &self.ledger)?;
        Ok(if worked { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST })
    }
}

fn respond(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::super::ledger;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn it_behaves_as_it_is_told_and_writes_down_what_it_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let tasks = Supervisor::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = Arc::new(Ledger::open(&path, "x", 1).unwrap());
        tasks.spawn("server", TaskKind::Session, serve(listener, own, None, tasks.clone()));
        assert!(ask(address, "/r/one").await.ends_with("x one\n"));
        assert!(ask(address, "/drill/lie").await.ends_with("x lie\n"));
        assert!(ask(address, "/r/two").await.starts_with("HTTP/1.1 500 "));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200 "), "it lies");
        ask(address, "/drill/slow").await;
        assert!(ask(address, "/r/four").await.ends_with("x four\n"));
        ask(address, "/drill/well").await;
        assert!(ask(address, "/r/s7/five").await.ends_with("x five\n"), "whoever's it is");
        ask(address, "/drill/fail").await;
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 500 "), "it says so");
        ask(address, "/drill/stall").await;
        let asked = std::time::Instant::now();
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(asked.elapsed() >= STALL);
        let did: Vec<Does> =
            ledger::read(&path, 0).unwrap().0.into_iter().map(|it| it.does).collect();
        assert_eq!(did, ["one", "four", "five"].map(|id| Does::Request(id.into())));
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[test]
    fn a_request_of_another_partition_than_its_key_says_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&folder.path().join("ledger"), "x", 1).unwrap());
        let works: Arc<Works> = Arc::default();
        let divided = Divided { works: Arc::clone(&works), count: 12 };
        let behaviour = AtomicU8::new(Behaviour::Well as u8);
        let server = Server { ledger, divided: Some(divided), behaviour };
        let told = |partition: &str| {
            let fields = [("tandem-partition", partition), ("tandem-epoch", "1")];
            let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
            let fields =
                fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            server.work(("shop-17", "1"), &fields.collect()).unwrap()
        };
        assert_eq!(told("7"), StatusCode::BAD_REQUEST);
        assert_eq!(told(""), StatusCode::BAD_REQUEST, "it came past the doors");
        assert_eq!(told("6"), StatusCode::MISDIRECTED_REQUEST, "it owns nothing");
        let later = r#"{"version":1,"before":1,"partitions":[]}"#;
        works.follow(&serde_json::from_str(later).unwrap());
        assert_eq!(told("7"), StatusCode::MISDIRECTED_REQUEST, "the door counts as before");
    }
}
