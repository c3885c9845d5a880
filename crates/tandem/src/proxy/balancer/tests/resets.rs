//! How connections end: halves that are closed, and resets that are passed on.

use super::*;

/// A balancer before one endpoint that the test plays itself, and a connection through both.
async fn through() -> (Supervisor, Balancer, TcpStream, TcpStream) {
    let supervisor = Supervisor::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    let config = BalancerConfig { upstreams: vec![upstream], ..config(&[]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
    let (mut endpoint, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    // Only what came through shows that the balancer's connect has ended too.
    client.write_all(b"?").await.unwrap();
    timeout(LIMIT, endpoint.read_u8()).await.unwrap().unwrap();
    (supervisor, balancer, client, endpoint)
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn read_end(stream: &mut TcpStream) -> std::io::ErrorKind {
    timeout(LIMIT, stream.read_u8()).await.expect("an end").unwrap_err().kind()
}

const RESET: std::io::ErrorKind = std::io::ErrorKind::ConnectionReset;
const END: std::io::ErrorKind = std::io::ErrorKind::UnexpectedEof;

#[tokio::test]
async fn a_reset_ends_the_connection_and_is_passed_on() {
    for half_open in [false, true] {
        let (_supervisor, balancer, mut client, mut endpoint) = through().await;
        if half_open {
            client.shutdown().await.unwrap();
            assert_eq!(read_end(&mut endpoint).await, END);
        }
        reset(endpoint);
        assert_eq!(read_end(&mut client).await, RESET, "half open: {half_open}");
        until(&balancer, |it| it.sessions == 0).await;
        let (_supervisor, balancer, client, mut endpoint) = through().await;
        if half_open {
            endpoint.shutdown().await.unwrap();
        }
        reset(client);
        assert_eq!(read_end(&mut endpoint).await, RESET, "half open: {half_open}");
        until(&balancer, |it| it.sessions == 0).await;
    }
}

/// What closed its half is read from no more: its reset is seen all the same.
#[tokio::test]
async fn a_reset_of_what_closed_its_half_before_ends_the_connection() {
    for client_first in [true, false] {
        let (_supervisor, balancer, mut client, mut endpoint) = through().await;
        let (first, second) =
            if client_first { (&mut client, &mut endpoint) } else { (&mut endpoint, &mut client) };
        first.shutdown().await.unwrap();
        assert_eq!(read_end(second).await, END);
        let (gone, _stays) = if client_first { (client, endpoint) } else { (endpoint, client) };
        reset(gone);
        until(&balancer, |it| it.sessions == 0).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_is_idle() {
    let supervisor = Supervisor::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let upstream = Upstream { host, port, weight: 1, far: false, drain: false };
    let idle_timeout = Duration::from_millis(300);
    let config = BalancerConfig { upstreams: vec![upstream], idle_timeout, ..config(&[]) };
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
    let (mut endpoint, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let piece = vec![b'x'; 100_000];
    while timeout(LIMIT, client.write_all(&piece)).await.expect("an end").is_ok() {}
    until(&balancer, |it| it.sessions == 0).await;
    let rest = timeout(LIMIT, endpoint.read_to_end(&mut Vec::new())).await.expect("an end");
    assert_eq!(rest.unwrap_err().kind(), RESET, "what it was sent is not whole");
}

#[tokio::test]
async fn what_a_door_that_closes_cuts_never_looks_whole() {
    let (_supervisor, balancer, mut client, mut endpoint) = through().await;
    endpoint.write_all(b"half").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    assert!(!balancer.close(Duration::from_millis(50)).await);
    assert_eq!(read_end(&mut client).await, RESET);
    assert_eq!(read_end(&mut endpoint).await, RESET);
    // Whoever was told the end has all of it, however late it reads that.
    let (_supervisor, balancer, mut client, mut endpoint) = through().await;
    endpoint.write_all(b"all").await.unwrap();
    endpoint.shutdown().await.unwrap();
    let readable = tokio::io::Interest::READABLE;
    while !client.ready(readable).await.unwrap().is_read_closed() {
        tokio::task::yield_now().await;
    }
    assert!(!balancer.close(Duration::from_millis(50)).await);
    assert_eq!(read_end(&mut endpoint).await, RESET);
    let mut all = Vec::new();
    timeout(LIMIT, client.read_to_end(&mut all)).await.expect("an end").unwrap();
    assert_eq!(all, b"all");
}

#[tokio::test]
async fn what_the_system_accepted_before_the_close_is_served() {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, b'a').await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    let client = std::net::TcpStream::connect(balancer.local_address()).unwrap();
    client.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(client).unwrap();
    let answer = async {
        let letter = timeout(LIMIT, client.read_u8()).await.unwrap();
        client.shutdown().await.unwrap();
        letter
    };
    let (drained, letter) = tokio::join!(balancer.close(LIMIT), answer);
    assert!(drained && letter.is_ok_and(|letter| letter == b'a'));
}
