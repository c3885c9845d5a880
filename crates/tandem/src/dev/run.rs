//! Talks to the person who wants a cluster to play with: starts one, says how to use it, waits.
//! In: `DevArgs`. Out: text, or JSON.
//! Tested by: below, and by hand with `make dev`.

use super::layout::{NodePlace, SERVICE};
use super::{DevCluster, DevConfig, Error, Wiring, folders};
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// What `tandem dev` was asked for.
#[derive(Clone, Debug)]
pub struct DevArgs {
    /// What kind of cluster.
    pub config: DevConfig,
    /// Its parts.
    pub wiring: Wiring,
    /// Say how to connect as JSON.
    pub json: bool,
}

/// Runs a cluster until Ctrl-C.
///
/// # Errors
/// When it cannot be started.
pub async fn run(args: &DevArgs, out: &mut (dyn Write + Send)) -> Result<(), Error> {
    let starting = DevCluster::start(&args.config, &args.wiring);
    let Some(started) = unless_interrupted(starting).await else { return Ok(()) };
    let cluster = started?;
    match unless_interrupted(cluster.answers()).await {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            cluster.stop().await;
            return Err(error);
        }
        None => {
            cluster.stop().await;
            return Ok(());
        }
    }
    let printed = if args.json { write_json(&cluster, out) } else { write_text(&cluster, out) };
    if printed.is_ok() {
        interrupted().await;
    }
    cluster.stop().await;
    printed
}

fn write_text(cluster: &DevCluster, out: &mut (dyn Write + Send)) -> Result<(), Error> {
    write_how_to_connect(cluster, out)?;
    writeln!(out, "\nCtrl-C ends it and leaves nothing behind.")
        .and_then(|()| out.flush())
        .map_err(|source| Error::Print { source })
}

/// The same for programs, as one line.
fn write_json(cluster: &DevCluster, out: &mut (dyn Write + Send)) -> Result<(), Error> {
    let layout = cluster.layout();
    if let Some(given) = layout.given() {
        let doors = |place: &NodePlace| -> serde_json::Map<String, Value> {
            let at = |(name, port): (&String, &u16)| {
                (name.clone(), format!("{}:{port}", place.ip).into())
            };
            given.doors().iter().map(at).collect()
        };
        let node = |place: &NodePlace| {
            let api = format!("http://{}", layout.api(place));
            json!({ "name": place.node, "api": api, "doors": doors(place) })
        };
        let nodes: Vec<Value> = layout.nodes.iter().map(node).collect();
        let told = json!({ "dir": layout.root, "nodes": nodes });
        return writeln!(out, "{told}")
            .and_then(|()| out.flush())
            .map_err(|source| Error::Print { source });
    }
    let passfile = write_passfile(cluster)?;
    let node = |place: &NodePlace| {
        let (api, door) = (format!("http://{}", layout.api(place)), layout.door(place));
        json!({ "name": place.node, "api": api, "host": door.ip(), "port": door.port() })
    };
    let nodes: Vec<Value> = layout.nodes.iter().map(node).collect();
    let told = json!({
        "dir": layout.root, "user": "app", "database": "app", "passfile": passfile, "nodes": nodes,
    });
    writeln!(out, "{told}").and_then(|()| out.flush()).map_err(|source| Error::Print { source })
}

/// Waits for Ctrl-C or a polite request to end.
pub async fn interrupted() {
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!(%error, "cannot wait for SIGTERM");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

/// Does something unless Ctrl-C comes first; then it is dropped, and none is the answer.
pub async fn unless_interrupted<T>(something: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = something => Some(done),
        () = interrupted() => None,
    }
}

fn how_to_connect(
    (postgres, service): (Option<&Option<u16>>, &str),
    door: SocketAddr,
    node: &NodePlace,
) -> String {
    let Some(reads) = postgres else {
        return format!("connect    {service}: {door}    (any node's address will do)");
    };
    let reads = reads.map_or_else(String::new, |port| format!(", or -p {port} to read"));
    format!(
        "connect    {service}: PGPASSWORD=$(tandem password --dir {} {service}) psql -h {} -p {} \
         -U app app    (any node's address will do{reads})",
        node.dir.display(),
        door.ip(),
        door.port()
    )
}

/// Says how to reach the cluster; the password goes to a file, not to the screen.
///
/// # Errors
/// When the file cannot be written, or `out` fails.
pub fn write_how_to_connect(
    cluster: &DevCluster,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    let layout = cluster.layout();
    let Some(first) = layout.nodes.first() else { return Ok(()) };
    let mut lines =
        vec![format!("cluster    {} nodes in {}", layout.nodes.len(), layout.root.display())];
    match layout.given() {
        Some(given) => lines.extend(given.doors().iter().map(|(service, port)| {
            let of_service = (given.postgres().get(service), service.as_str());
            how_to_connect(of_service, SocketAddr::new(first.ip.into(), *port), first)
        })),
        None => {
            let (passfile, door) = (write_passfile(cluster)?, layout.door(first));
            lines.push(format!(
                "connect    PGPASSFILE={} psql -h {} -p {} -U app app    (any node's address will \
                 do)",
                passfile.display(),
                door.ip(),
                door.port()
            ));
        }
    }
    lines.extend([
        format!("status     {} status --api http://{}", cluster.exe().display(), layout.api(first)),
        "API".to_string(),
    ]);
    for place in &layout.nodes {
        lines.push(format!("  {}        http://{}/v1/status", place.node, layout.api(place)));
    }
    lines
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
        .map_err(|source| Error::Print { source })
}

/// One line for every door of every node.
fn write_passfile(cluster: &DevCluster) -> Result<PathBuf, Error> {
    let layout = cluster.layout();
    let Some(first) = layout.nodes.first() else { return Err(Error::Nodes { nodes: 0 }) };
    let path = first.dir.join(format!("{SERVICE}.pgpass"));
    let password = cluster.password("app")?;
    let mut text = String::new();
    for place in &layout.nodes {
        text.push_str(&format!("{}:*:app:app:{password}\n", place.ip));
    }
    folders::write_private(&path, &text)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::cluster::tests::stand_in;
    use super::*;

    #[tokio::test]
    async fn says_how_to_connect_and_keeps_the_password_off_the_screen() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = stand_in(2, &folder.path().join("node")).await;
        let mut out = Vec::new();
        write_how_to_connect(&cluster, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("psql -h 127.") && text.contains("/v1/status"), "{text}");
        assert!(!text.contains("secret of app"));
        let passfile = cluster.layout().root.join("a/orders.pgpass");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&passfile).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "psql refuses anything else");
        let mut out = Vec::new();
        write_json(&cluster, &mut out).unwrap();
        let told: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(told["nodes"][1]["name"], "b");
        assert!(told["nodes"][0]["api"].as_str().unwrap().starts_with("http://127."), "{told}");
        assert!(std::path::Path::new(told["passfile"].as_str().unwrap()).exists());
        assert!(!told.to_string().contains("secret of app"));
        cluster.stop().await;
    }
}
