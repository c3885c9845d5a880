//! Two zones, and a node in none: what is near gets the work while it works.

use super::machines::Machines;
use super::{NAMES, door, found, service, upstream, write};
use crate::traffic::{Endpoint, letter};

const ASKED: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_prefers_what_is_in_its_zone() {
    let mut machines = Machines::new(&NAMES);
    let mut endpoints = [Endpoint::start('x').await, Endpoint::start('y').await];
    let [x, y] = [0, 1].map(|at| endpoints[at].address);
    let zones = ["east", "west"];
    let upstreams = format!(
        "{{ address = \"{x}\", zone = \"{}\" }}, {{ address = \"{y}\", zone = \"{}\" }}",
        zones[0], zones[1]
    );
    write(&machines, &service(door(&machines, "a"), &upstreams, ""));
    let mut text = std::fs::read_to_string(machines.config_path()).unwrap();
    for (node, zone) in ["a", "b"].into_iter().zip(zones) {
        let table = format!("[nodes.{node}]\n");
        text = text.replace(&table, &format!("{table}zone = \"{zone}\"\n"));
    }
    std::fs::write(machines.config_path(), text).unwrap();
    found(&mut machines, &endpoints).await;
    assert_eq!(letters(&machines, "a").await, "xxxxxx");
    assert_eq!(letters(&machines, "b").await, "yyyyyy");
    let of_c = letters(&machines, "c").await;
    assert_eq!(of_c.matches('x').count(), ASKED / 2, "it is in no zone: {of_c}");
    endpoints[0].stop().await;
    machines.until("a", "it is down", |it| upstream(it, &endpoints[0])["state"] == "down").await;
    assert_eq!(letters(&machines, "a").await, "yyyyyy", "nothing is left nearby");
    endpoints[0].restart().await;
    machines.until("a", "it is back", |it| upstream(it, &endpoints[0])["state"] == "up").await;
    assert_eq!(letters(&machines, "a").await, "xxxxxx");
    machines.took("near and far");
}

async fn letters(machines: &Machines, node: &str) -> String {
    let mut letters = String::new();
    for _ in 0..ASKED {
        letters.push(letter(door(machines, node)).await.unwrap());
    }
    letters
}
