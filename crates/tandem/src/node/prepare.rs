//! Reads what a node starts from: its identity, its configuration, its routes.
//! In: `NodeArgs`. Out: `Ground`, or why the node does not run.
//! Keeps: once a configuration was agreed, that one counts; the file on the command line founds a
//! cluster, or tells a node that joins where the others are. H48 a node that was removed stays out.

use super::services::folders::Folders;
use super::services::ports::Ports;
use super::{Error, Ground, NodeArgs, agreed};
use crate::config::{self, Config};
use crate::driver::hub::Hub;
use crate::identity::Identity;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::events::EventLog;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tandem_core::ids::{ConfigVersion, NodeId};

pub(super) fn prepare(args: NodeArgs, supervisor: &Supervisor) -> Result<Ground, Error> {
    let identity = Identity::load(&args.dir)?;
    if *identity.node() != args.node {
        let found = identity.node().clone();
        return Err(Error::OtherNode { dir: args.dir, found, node: args.node });
    }
    let (version, config) = configuration(&args)?;
    let routes = match &args.routes {
        Some(path) => toml::from_str(&read(path)?)
            .map_err(|source| Error::Routes { path: path.clone(), source: Box::new(source) })?,
        None => BTreeMap::new(),
    };
    let hub = Arc::new(Hub::new(args.node.clone()));
    for node in config.nodes.keys().filter(|node| **node != args.node) {
        hub.expect(node);
    }
    hub.configured(version, false);
    let (events, ports) = (EventLog::new(args.node.clone()), Ports::of((version, &config)));
    Ok(Ground {
        args,
        version,
        config,
        identity: Arc::new(identity),
        routes,
        hub,
        explanations: Arc::default(),
        events,
        supervisor: supervisor.clone(),
        folders: Folders::default(),
        ports,
    })
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })
}

fn configuration(args: &NodeArgs) -> Result<(ConfigVersion, Config), Error> {
    let file = agreed::path(&args.dir);
    let kept =
        agreed::load(&args.dir).map_err(|source| Error::File { path: file.clone(), source })?;
    let Some(kept) = kept else {
        let text = config::read_file(&args.config).map_err(Error::Unreadable)?;
        let config = parse(&text, &args.config)?;
        if config.nodes.contains_key(&args.node) {
            return Ok((ConfigVersion(0), config));
        }
        let known: Vec<&str> = config.nodes.keys().map(NodeId::as_str).collect();
        return Err(Error::NoSuchNode { node: args.node.clone(), known: known.join(", ") });
    };
    if std::fs::read_to_string(&args.config).is_ok_and(|text| text != kept.text) {
        tracing::info!(
            file = %args.config.display(),
            version = %kept.version,
            "the file differs from the agreed configuration, which counts"
        );
    }
    let config = parse(&kept.text, &file)?;
    if !config.nodes.contains_key(&args.node) {
        let (node, dir) = (args.node.clone(), args.dir.clone());
        return Err(Error::Removed { node, version: kept.version, dir });
    }
    Ok((kept.version, config))
}

fn parse(text: &str, path: &Path) -> Result<Config, Error> {
    Config::parse(text, &path.display().to_string()).map_err(Error::Config)
}
