//! The web application with copies on two of three nodes: it is asked through every door, without a
//! pause, while a copy dies, an operator restarts, drains and changes it, and a node dies.

use super::app;
use super::cluster::{Running, example};
use super::traffic::{Asks, Traffic};
use serde_json::Value;
use std::net::SocketAddr;
use tandem_core::ids::NodeId;

const SERVICE: &str = "web";

/// The example with a program that is there.
fn given() -> String {
    let text = example("load-balanced-command");
    let program = std::env::current_exe().unwrap();
    let (before, rest) = text.split_once("command = [").unwrap();
    let (_, after) = rest.split_once("\n]\n").unwrap();
    let words = format!("{:?}, \"--ignored\", \"--exact\", \"app::serve\"", program.display());
    format!("{before}command = [{words}]\n{after}")
}

async fn status(running: &Running) -> Option<Value> {
    let said = running.tandem(&["--json", "status"]);
    let status: Value = serde_json::from_str(&said).ok()?;
    status["services"].as_array()?.iter().find(|it| it["name"] == SERVICE).cloned()
}

/// The nodes whose copies serve, once so many do and nothing is under way.
async fn serving(running: &Running, count: u64, but: Option<&NodeId>) -> Vec<NodeId> {
    running
        .until("copies serve", async || {
            let web = status(running).await?;
            let copies = &web["copies"];
            let settled = copies["turn"].is_null() && copies["wanted"] == count;
            let instances = web["instances"].as_array()?;
            let runs = instances.iter().filter(|it| it["state"] == "running");
            let nodes: Vec<NodeId> =
                runs.filter_map(|it| Some(it["node"].as_str()?.into())).collect();
            let all = nodes.len() as u64 == count && copies["serving"] == count;
            (settled && all && but.is_none_or(|node| !nodes.contains(node))).then_some(nodes)
        })
        .await
}

fn doors(running: &Running, but: Option<&NodeId>) -> Vec<SocketAddr> {
    let nodes = running.nodes();
    let open = nodes.iter().filter(|node| Some(*node) != but);
    open.map(|node| running.door(node, SERVICE)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_application_runs_beside_itself_and_loses_no_request() {
    let running = Running::start(given()).await;
    let first = serving(&running, 2, None).await;
    running.took("founded");

    let traffic = Traffic::start(&doors(&running, None), Asks::Gets);
    traffic.more(300).await;
    running.dev().kill_command(&first[0]).unwrap();
    traffic.more(300).await;
    serving(&running, 2, None).await;
    traffic.end("a copy dies").await;

    let traffic = Traffic::start(&doors(&running, None), Asks::All);
    traffic.more(100).await;
    let said = running.tandem(&["restart", SERVICE]);
    assert!(said.contains("every copy of web was started anew"), "{said}");
    running.took("restarted in turns");
    let said = running.tandem(&["drain", first[0].as_str()]);
    let drained = serving(&running, 2, Some(&first[0])).await;
    running.took("drained");
    running.tandem(&["undrain", first[0].as_str()]);
    let by = traffic.end("a restart, a drain").await;
    assert!(by.keys().any(|who| !first.iter().any(|node| node.as_str() == who.node)), "{said}");
    assert!(by.keys().all(|who: &app::Who| who.mode == "production"), "{by:?}");

    let victim = drained[0].clone();
    let traffic = Traffic::start(&doors(&running, Some(&victim)), Asks::Gets);
    traffic.more(100).await;
    running.dev().kill_node(&victim).await.unwrap();
    running
        .until("its copy runs elsewhere", async || {
            let others: Vec<NodeId> =
                running.nodes().into_iter().filter(|node| *node != victim).collect();
            let node = others.first()?;
            let status = running.dev().status(node).await.ok()?;
            let web = status.service(SERVICE)?;
            let runs = |node: &NodeId| {
                web.instances.iter().any(|copy| {
                    copy.node == node.as_str() && copy.state.as_deref() == Some("running")
                })
            };
            others.iter().all(runs).then_some(())
        })
        .await;
    traffic.end("a node dies").await;
    running.took("its node died, and another took over");
    running.stop().await;
}
