//! What becomes of connections to an endpoint that gets no more of them.

use super::*;
use crate::proxy::balancer::Cut;
use crate::proxy::http::tests::support::unreachable;

const BRIEF: Option<Duration> = Some(Duration::from_millis(100));

fn drained(config: &BalancerConfig) -> BalancerConfig {
    let mut drained = config.clone();
    drained.upstreams[0].drain = true;
    drained
}

/// Both sides see a reset: nobody takes it for the end of an answer.
pub(super) async fn is_reset(stream: &mut TcpStream) -> bool {
    let read = timeout(LIMIT, stream.read_u8()).await.expect("an end");
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn an_idle_connection_to_a_drained_endpoint_is_cut_after_a_time_and_told() {
    let (supervisor, a, b) = pair().await;
    let config = BalancerConfig { drain_max: BRIEF, ..config(&[&a, &b]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let (letter_before, mut idle) = ask(&balancer).await.unwrap();
    let (_, mut other) = ask(&balancer).await.unwrap();
    assert_eq!(letter_before, b'a');
    balancer.configure(drained(&config)).unwrap();
    assert!(balancer.snapshot().endpoints[0].cut_in.is_some(), "it is said when");
    assert!(is_reset(&mut idle).await);
    let snapshot = until(&balancer, |it| it.endpoints[0].in_flight == 0).await;
    let [cut, kept] = &snapshot.endpoints[..] else { panic!("{snapshot:?}") };
    assert_eq!((cut.cut, cut.failed, kept.cut, kept.cut_in), (1, 0, 0, None), "it is no failure");
    let mut told = Vec::new();
    while told.is_empty() {
        told = balancer.cuts();
        sleep(Duration::from_millis(2)).await;
    }
    let upstream = a.address.to_string();
    assert_eq!(told, [Cut { address: a.address, upstream, count: 1 }]);
    assert_eq!(balancer.cuts(), [], "once");
    other.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, other.read_u8()).await.unwrap().unwrap(), b'!');
}

#[tokio::test]
async fn what_is_left_where_nobody_is_any_more_is_cut_at_once() {
    let (supervisor, a, b) = pair().await;
    let long = Some(Duration::from_secs(3600));
    let config = BalancerConfig { drain_max: long, ..config(&[&a, &b]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let (_, mut gone) = ask(&balancer).await.unwrap();
    let (letter, mut stays) = ask(&balancer).await.unwrap();
    assert_eq!(letter, b'b');
    let led = [a.address, b.address].into();
    balancer.cut_elsewhere(b.address, &led);
    gone.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, gone.read_u8()).await.unwrap().unwrap(), b'!', "it still gets work");
    balancer.configure(drained(&config)).unwrap();
    balancer.cut_elsewhere(b.address, &[b.address].into());
    // For longer than what has just moved would keep it.
    sleep(Duration::from_millis(1500)).await;
    gone.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, gone.read_u8()).await.unwrap().unwrap(), b'!', "nobody led there");
    balancer.cut_elsewhere(b.address, &led);
    assert!(is_reset(&mut gone).await);
    stays.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, stays.read_u8()).await.unwrap().unwrap(), b'!');
}

#[tokio::test]
async fn a_connection_to_an_endpoint_that_is_listed_no_more_is_cut_after_a_time() {
    let (supervisor, a, b) = pair().await;
    let both = BalancerConfig { drain_max: BRIEF, ..config(&[&a, &b]) };
    let balancer = Balancer::open(both.clone(), &supervisor).unwrap();
    let (letter_before, mut idle) = ask(&balancer).await.unwrap();
    assert_eq!(letter_before, b'a');
    let upstreams = config(&[&b]).upstreams;
    balancer.configure(BalancerConfig { upstreams, ..both }).unwrap();
    assert!(is_reset(&mut idle).await);
    let mut told = Vec::new();
    while told.is_empty() {
        // Whoever looks meanwhile makes nobody forget what was not told.
        balancer.snapshot();
        told = balancer.cuts();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((told[0].address, told[0].count), (a.address, 1));
}

#[tokio::test]
async fn an_endpoint_that_is_used_again_keeps_what_it_has() {
    let (supervisor, a, b) = pair().await;
    let long = Some(Duration::from_secs(3600));
    let long = BalancerConfig { drain_max: long, ..config(&[&a, &b]) };
    let balancer = Balancer::open(long.clone(), &supervisor).unwrap();
    let (letter_before, mut kept) = ask(&balancer).await.unwrap();
    assert_eq!(letter_before, b'a');
    balancer.configure(drained(&long)).unwrap();
    assert!(balancer.snapshot().endpoints[0].cut_in > BRIEF);
    balancer.configure(long.clone()).unwrap();
    // The bound that there is now finds nobody; nor does one that is none.
    balancer.configure(BalancerConfig { drain_max: BRIEF, ..long.clone() }).unwrap();
    balancer.configure(BalancerConfig { drain_max: None, ..drained(&long) }).unwrap();
    for _ in 0..3 {
        balancer.sweep_now();
    }
    kept.write_all(b"!").await.unwrap();
    assert_eq!(timeout(LIMIT, kept.read_u8()).await.unwrap().unwrap(), b'!');
    assert_eq!((balancer.snapshot().endpoints[0].cut_in, balancer.cuts()), (None, Vec::new()));
}

#[tokio::test]
async fn who_waits_for_an_endpoint_that_gets_no_more_work_goes_to_another_at_once() {
    let (supervisor, mut a, b) = pair().await;
    let (address, _waiting, _socket) = unreachable().await;
    a.address = address;
    let config = BalancerConfig { connect_timeout: LIMIT * 10, ..config(&[&a, &b]) };
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
    until(&balancer, |it| it.endpoints[0].in_flight == 1).await;
    balancer.configure(drained(&config)).unwrap();
    let answered = timeout(LIMIT, client.read_u8()).await.expect("an answer");
    assert_eq!(answered.unwrap(), b'b');
    assert_eq!(balancer.snapshot().endpoints[0].failed, 0, "it did nothing wrong");
}

#[tokio::test]
async fn who_has_closed_a_half_at_once_is_cut_as_well() {
    let supervisor = Supervisor::new();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let b = Endpoint::start(&supervisor, b'b').await;
    let mut config = config(&[&b, &b]);
    config.upstreams[0].port = listener.local_addr().unwrap().port();
    // Longer than what is half open may be silent.
    config.idle_timeout = Duration::from_secs(3600);
    let led = [listener.local_addr().unwrap(), b.address].into();
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
    client.shutdown().await.unwrap();
    let (mut copy, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    assert_eq!(timeout(LIMIT, copy.read(&mut [0])).await.unwrap().unwrap(), 0);
    balancer.configure(drained(&config)).unwrap();
    balancer.cut_elsewhere(b.address, &led);
    assert!(is_reset(&mut client).await);
}

/// What it said it may have said to its end.
#[tokio::test]
async fn what_a_copy_said_before_it_was_gone_gets_to_a_client_that_is_slow() {
    const ALL: usize = 16 << 20;
    for closes in [true, false] {
        let supervisor = Supervisor::new();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let b = Endpoint::start(&supervisor, b'b').await;
        let mut config = config(&[&b, &b]);
        config.upstreams[0].port = listener.local_addr().unwrap().port();
        let led = [listener.local_addr().unwrap(), b.address].into();
        let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
        let mut client = TcpStream::connect(balancer.local_address()).await.unwrap();
        let (mut copy, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        supervisor.spawn("copy", crate::runtime::supervisor::TaskKind::Session, async move {
            copy.write_all(&vec![b'.'; ALL]).await.unwrap();
            if !closes {
                let _ = copy.read_u8().await;
            }
        });
        assert_eq!(client.peek(&mut [0]).await.unwrap(), 1);
        balancer.configure(drained(&config)).unwrap();
        // It takes nothing for longer than anybody waits who has nothing for it.
        for _ in 0..3 {
            balancer.cut_elsewhere(b.address, &led);
            sleep(Duration::from_millis(500)).await;
        }
        let mut all = Vec::new();
        let end = timeout(LIMIT, client.read_to_end(&mut all)).await.expect("an end");
        assert_eq!((all.len(), end.is_ok()), (ALL, closes), "an end that was said, or a reset");
    }
}
