//! `tandem explain`.

use super::{ok, refused};
use crate::api::explain::{Explanation, OnePartition};
use crate::api::tests::{fake, serve};
use crate::telemetry::codes;

#[tokio::test]
async fn a_service_is_explained_with_reasons_and_numbers() {
    let served = serve().await;
    let page = ok(&served, "explain orders").await;
    let expected = "\
orders  term 4  active  primary a
a serves in term 4
switchover to the best standby at 2025-11-23T04:00:00.000Z (kept by b)

No failover now, because:
  - a proved its lease [lease_ms 1400]

A failover now would be safe: b holds every acknowledged commit
  it would choose b
  CANDIDATE  ELIGIBLE  LSN        LAG  BECAUSE
  b          yes       0/3000060  0 B  streams

Last plans:
  2025-11-22T18:34:07.123Z  a  wait (x12): all is well

Primaries:
  2025-11-22T18:34:00.000Z  term 4  a  served after 290 ms: the keeper of c saw it exit
";
    assert_eq!(page, expected);
    let json = ok(&served, "explain orders --json").await;
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), fake::explanation());
}

#[tokio::test]
async fn one_partition_says_whose_it_is_and_what_it_waits_for() {
    let served = serve().await;
    let page = ok(&served, "explain work --key shop-17").await;
    let expected = "\
key \"shop-17\" has the hash 0x8675b487e9e6323a: partition 6 of 12
work  partition 6 of 12  epoch 4  releasing  owner a  to c
a was asked to release it to c [epoch 4]
  seen releasing for 3200 ms; past 10000 ms its copy is ended
  waits for a
  requests are held: it is being released

Last plans:
  2025-11-22T18:34:07.123Z  a  wait (x12): all is well
";
    assert_eq!(page, expected);
    let page = ok(&served, "explain work --partition 7").await;
    assert!(page.starts_with("work  partition 7 of 12  epoch 4  releasing"), "{page}");
    let json = ok(&served, "explain work --partition 7 --json").await;
    assert_eq!(serde_json::from_str::<OnePartition>(&json).unwrap().partition.0, 7);
    assert_eq!(refused(&served, "explain no --partition 7").await.code, codes::NO_SUCH_SERVICE);
}

#[tokio::test]
async fn a_code_is_explained_without_a_node() {
    let served = serve().await;
    let page = ok(&served, "explain tdm0606").await;
    assert!(page.starts_with("# TDM0606: a failover could lose acknowledged commits"), "{page}");
    assert_eq!(refused(&served, "explain TDM9999").await.code, codes::ARGUMENT);
    assert_eq!(refused(&served, "explain nothing").await.code, codes::NO_SUCH_SERVICE);
}
