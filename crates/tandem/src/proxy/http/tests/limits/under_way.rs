//! Whoever takes nothing is sent nothing more: of what the other side has to say, the door keeps a
//! bounded part, whichever way it goes and whatever they speak. What the system itself keeps in
//! its queues is no part of that, and is asked of it.

use super::super::h2::client::{H2, get};
use super::super::support::{LIMIT, config, until};
use crate::proxy::balancer::{Balancer, BalancerConfig, Upstream};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use http::Request;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// What would be sent if somebody took it.
const WHOLE: u64 = 64 << 20;
/// The most of it that the door may have, with what the client's own library does.
const KEPT_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Bytes,
    Http1,
    Http2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToClient,
    ToEndpoint,
}

type Sent = Arc<AtomicU64>;

async fn pour(stream: &mut TcpStream, sent: &Sent) {
    let piece = vec![0; 65_536];
    while sent.load(Ordering::Relaxed) < WHOLE {
        let Ok(written) = stream.write(&piece).await else { return };
        sent.fetch_add(written as u64, Ordering::Relaxed);
    }
}

/// One connection: reads a head if there is one, then sends all it has or takes nothing more. Both
/// of its ends.
async fn endpoint(
    supervisor: &Supervisor,
    (speaks, way): (Speaks, Way),
    sent: &Sent,
) -> (SocketAddr, watch::Receiver<Option<SocketAddr>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ((tell, came), sent) = (watch::channel(None), Arc::clone(sent));
    supervisor.spawn("endpoint", TaskKind::Session, async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        tell.send_replace(Some(from));
        let mut head = Vec::new();
        while speaks != Speaks::Bytes && !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        if way == Way::ToClient {
            if speaks != Speaks::Bytes {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
            }
            pour(&mut stream, &sent).await;
        }
        pending::<()>().await;
    });
    (address, came)
}

/// Asks for everything, or sends everything; where its connection comes from.
async fn client(
    supervisor: &Supervisor,
    (speaks, way): (Speaks, Way),
    balancer: &Balancer,
    sent: &Sent,
) -> SocketAddr {
    let mut tcp = TcpStream::connect(balancer.local_address()).await.unwrap();
    let (address, sent) = (tcp.local_addr().unwrap(), Arc::clone(sent));
    let own = supervisor.clone();
    supervisor.spawn("client", TaskKind::Session, async move {
        if speaks == Speaks::Http2 {
            let client = H2::over(&own, tcp).await;
            match way {
                Way::ToClient => {
                    let mut asked = client.send(get("/"), &[]).await;
                    let _body = asked.head().await.unwrap();
                    return pending::<()>().await;
                }
                Way::ToEndpoint => return pour_stream(&client, &sent).await,
            }
        }
        let head = match (speaks, way) {
            (Speaks::Bytes, _) => String::new(),
            (_, Way::ToClient) => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            (_, Way::ToEndpoint) => {
                format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {WHOLE}\r\n\r\n")
            }
        };
        tcp.write_all(head.as_bytes()).await.unwrap();
        if way == Way::ToEndpoint {
            pour(&mut tcp, &sent).await;
        }
        pending::<()>().await;
    });
    address
}

async fn pour_stream(client: &H2, sent: &Sent) {
    let request = Request::post("http://a/").header("content-length", WHOLE).body(()).unwrap();
    let mut sending = client.send(request, &[]).await;
    while sent.load(Ordering::Relaxed) < WHOLE {
        sending.body.reserve_capacity(65_536);
        let room = poll_fn(|cx| sending.body.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return };
        sending.body.send_data(Bytes::from(vec![0; room]), false).unwrap();
        sent.fetch_add(room as u64, Ordering::Relaxed);
    }
    pending().await
}

/// What the system has of a connection on this machine that was sent and not read, at both ends.
fn queued((one, other): (SocketAddr, SocketAddr)) -> u64 {
    let place = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let (one, other) = (place(one), place(other));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = words[..] else { return 0 };
        let is_it = (local == one && remote == other) || (local == other && remote == one);
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (unsent, unread) = queues.split_once(':').unwrap_or(("0", "0"));
        if is_it { number(unsent) + number(unread) } else { 0 }
    };
    table.lines().map(of_line).sum()
}

/// Waits until nothing moves any more.
async fn still(sent: &Sent) -> u64 {
    let begun = Instant::now();
    let (mut last, mut times) = (0, 0);
    while times < 5 {
        sleep(Duration::from_millis(20)).await;
        let now = sent.load(Ordering::Relaxed);
        times = if now == last && now > 0 { times + 1 } else { 0 };
        last = now;
        assert!(begun.elapsed() < LIMIT, "it never rests: {now}");
    }
    last
}

async fn is_bounded(speaks: Speaks, way: Way) {
    let supervisor = Supervisor::new();
    let sent = Sent::default();
    let (address, mut came) = endpoint(&supervisor, (speaks, way), &sent).await;
    let (host, port) = (address.ip().to_string(), address.port());
    let mut config = BalancerConfig { idle_timeout: Duration::from_secs(600), ..config(&[]) };
    config.upstreams = vec![Upstream { host, port, weight: 1, far: false, drain: false }];
    if speaks == Speaks::Bytes {
        config.http = None;
    }
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let client = client(&supervisor, (speaks, way), &balancer, &sent).await;
    let from = timeout(LIMIT, came.wait_for(Option::is_some)).await.unwrap().unwrap().unwrap();
    let sent = still(&sent).await;
    let outside = queued((client, balancer.local_address())) + queued((from, address));
    let kept = sent.saturating_sub(outside);
    println!("{speaks:?} {way:?}: sent {sent}, the system has {outside}, the door {kept}");
    assert!(outside > 0, "nobody took it, so it is somewhere");
    assert!(kept < KEPT_MAX, "{speaks:?} {way:?}: the door keeps {kept} of {sent}");
    assert!(sent < WHOLE, "{speaks:?} {way:?}: everything was taken");
    supervisor.stopping().cancel();
    until(|| balancer.snapshot().sessions == 0).await;
}

#[tokio::test]
async fn what_a_client_does_not_take_is_not_taken_from_its_endpoint() {
    for speaks in [Speaks::Bytes, Speaks::Http1, Speaks::Http2] {
        is_bounded(speaks, Way::ToClient).await;
    }
}

#[tokio::test]
async fn what_an_endpoint_does_not_take_is_not_taken_from_its_client() {
    for speaks in [Speaks::Bytes, Speaks::Http1, Speaks::Http2] {
        is_bounded(speaks, Way::ToEndpoint).await;
    }
}
