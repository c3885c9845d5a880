//! `tandem status`, and what it says when nobody answers.

use super::{ok, tandem};
use crate::api::status::Status;
use crate::api::tests::{fake, serve};
use crate::cli::Error;
use crate::cli::ask::status::size;
use crate::cli::client::Client;
use crate::telemetry::codes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::test]
async fn people_get_one_line_per_instance() {
    let served = serve().await;
    let page = ok(&served, "status").await;
    let expected = "\
cluster shop  config 3  leader a
  warning: not in force on this node: service web: cannot listen on 10.0.0.1:80

NODE  ADDRESS        ROLE     ZONE        STATE
a     10.0.0.1:7400  data     eu-west-1a  up
b     10.0.0.2:7400  data     -           silent
c     10.0.0.3:7400  witness  -           up

orders  postgres active-passive primary-replica  durability preferred  term 4  active  primary a
  connect through a: 10.0.0.1:5000 (reads: 10.0.0.1:5001)
  switchover to the best standby at 2025-11-23T04:00:00.000Z (kept by b)
  warning: commits are confirmed by nobody else
INSTANCE  ROLE     STATE         TL  LSN        LAG              SYNC                     \
ADDRESS        REASON
a         primary  running       2   0/3000060  0 B / 0.0 s      -                        \
10.0.0.1:5432
b         standby  disconnected  2   0/3000060  20.0 MB / 2.5 s  no (writes wait for it)  \
10.0.0.2:5432  node b is silent
  reads, as this node's door spreads them
UPSTREAM           STATE     WEIGHT  SHARE  OPEN  RATE   P50/P90/P99         TOTAL  FAILED  \
RETRIED  EJECTED  REASON
10.0.0.2:5432 (b)  starting  1       40 %   4     1.5/s  0.2 / 0.3 / 4.0 ms  900    0       \
0        0

cache  tcp load-balanced none  by peak-ewma  at a: 5 open, 1 held, 1000 so far, 7 retried
  9 refused of clients over their rate
  connect through a: 10.0.0.1:6379
  warning: cache3 cannot be looked up
UPSTREAM                      STATE  WEIGHT  SHARE  OPEN  RATE   P50/P90/P99         TOTAL  \
FAILED  RETRIED  EJECTED  REASON
10.0.0.11:6379                up     1       100 %  4     1.5/s  0.2 / 0.3 / 4.0 ms  900    \
0       0        0
10.0.0.12:6379 (cache2, far)  down   1       0 %    0     0.0/s  -                   900    \
8       6        1        its checks fail: no answer in time
";
    assert_eq!(page, expected);
}

#[tokio::test]
async fn programs_get_the_documented_json() {
    let served = serve().await;
    let text = ok(&served, "status --json").await;
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), fake::status());
}

/// An address where nothing listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn nobody_there_is_told_apart_from_somebody_else() {
    let (_, outcome) = tandem(&nobody().await, "status").await;
    let Err(Error::Problem(problem)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((problem.code, problem.exit().status()), (codes::API_UNREACHABLE, 4));
    assert!(problem.because.contains("refused"), "{problem}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stranger = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Closing with the request unread would reset the connection.
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        drop(stream);
    };
    let asking =
        async { (tandem(&address, "status").await.1, tandem(&address, "pause x").await.1) };
    let ((first, second), ()) = tokio::join!(asking, stranger);
    let Err(Error::Problem(problem)) = first else { panic!("{first:?}") };
    assert_eq!(problem.code, codes::ANSWER_NOT_UNDERSTOOD);
    let Err(Error::Problem(problem)) = second else { panic!("{second:?}") };
    assert_eq!((problem.code, problem.exit().status()), (codes::ANSWER_LOST, 4));
    assert!(problem.try_.contains("may have been done"), "{problem}");
}

#[tokio::test]
async fn the_next_address_is_tried() {
    let served = serve().await;
    let client = Client::new(&[nobody().await, served.url()]).unwrap();
    assert_eq!(client.read::<Status>("/v1/status").await, Ok(fake::status()));
}

#[test]
fn sizes_for_people() {
    let sizes = [0, 1023, 1024, 20 << 20, 3 << 40, u64::MAX].map(size);
    assert_eq!(sizes, ["0 B", "1023 B", "1.0 kB", "20.0 MB", "3.0 TB", "16777216.0 TB"]);
}
