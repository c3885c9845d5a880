//! Who is not let in.

use super::wire::{Greeting, Hello, VERSION, codec};
use super::*;
use crate::identity::{ALPN_MESH, join, mint_token};
use futures::{SinkExt as _, StreamExt as _};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::codec::Framed;

async fn trouble_with(node: &Node, peer: &str) -> String {
    node.is(peer, LinkState::Unreachable).await;
    node.mesh.trouble(&peer.into()).unwrap()
}

/// H35: another cluster has another authority.
#[tokio::test]
async fn another_cluster_is_refused() {
    let (ours, theirs) = (Cluster::apart(["a", "b"]).await, Cluster::apart(["a", "b"]).await);
    // Reachable first: `Unreachable` is also how a link begins.
    let gone = "127.0.0.1:1".to_owned();
    ours["a"].mesh.set_peers([("b".into(), gone)].into());
    ours["a"].is("b", LinkState::Refused).await;
    ours["a"].mesh.set_peers(theirs.addresses());
    for node in theirs.nodes.values() {
        node.mesh.set_peers(theirs.addresses());
    }
    let trouble = trouble_with(&ours["a"], "b").await;
    assert!(trouble.contains("certificate"), "{trouble}");
    theirs["b"].is("a", LinkState::Connected).await;
}

/// H35: one authority must not serve two clusters, and if it does, the names differ.
#[tokio::test]
async fn another_cluster_id_is_refused() {
    let mut cluster = Cluster::apart(["a", "b"]).await;
    let (a, b) = (cluster.dir("a").join("identity"), cluster.dir("b").join("identity"));
    let ca_key = KeyPair::from_pem(&fs::read_to_string(a.join("ca.key")).unwrap()).unwrap();
    let ca = fs::read_to_string(a.join("ca.crt")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let key = KeyPair::from_pem(&fs::read_to_string(b.join("node.key")).unwrap()).unwrap();
    let other = "f".repeat(32);
    let params = CertificateParams::new(vec![format!("b.{other}.tandem")]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(b.join("node.crt"), certificate.pem()).unwrap();
    fs::write(b.join("cluster-id"), &other).unwrap();
    let b = Arc::new(Identity::load(&cluster.dir("b")).unwrap());
    assert_ne!(b.cluster(), cluster.identities["a"].cluster());

    // It dials a member: by its own rules there is no such name, so it asks with a's.
    cluster.nodes.remove("b");
    cluster["a"].mesh.set_peers([("b".into(), "127.0.0.1:1".into())].into());
    let name = cluster.identities["a"].server_name(&"a".into()).unwrap();
    let mut framed = raw(&cluster["a"], b.mesh_client(), name).await.unwrap();
    let hello = Hello { cluster: b.cluster().clone(), node: "b".into(), incarnation: 1 };
    framed.send(Greeting::Hello(hello).encode()).await.unwrap();
    let answer = Greeting::decode(&framed.next().await.unwrap().unwrap()).unwrap();
    let Greeting::Refused(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("not of a node of this cluster"), "{why}");
}

type Raw =
    Framed<tokio_rustls::client::TlsStream<TcpStream>, tokio_util::codec::LengthDelimitedCodec>;

async fn raw(
    node: &Node,
    config: Arc<ClientConfig>,
    name: rustls::pki_types::ServerName<'static>,
) -> io::Result<Raw> {
    let stream = TcpStream::connect(node.mesh.address()).await?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Framed::new(stream, codec()))
}

async fn raw_as(cluster: &Cluster, from: &str, to: &str) -> Raw {
    let identity = &cluster.identities[from];
    let name = identity.server_name(&to.into()).unwrap();
    raw(&cluster[to], identity.mesh_client(), name).await.unwrap()
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(cluster.dir("a").join("identity/ca.crt")).unwrap();
    roots.add(ca).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(ring)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_MESH.to_vec()];
    let name = cluster.identities["b"].server_name(&"a".into()).unwrap();
    // In TLS 1.3 the client learns of it with the first thing it reads.
    let mut framed = raw(&cluster["a"], Arc::new(config), name).await.unwrap();
    let error = framed.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

/// H46: with words on both sides, and nothing of the message is looked at.
#[tokio::test]
async fn another_version_is_refused() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let mut framed = raw_as(&cluster, "b", "a").await;
    let mut greeting = Greeting::Refused(String::new()).encode().to_vec();
    greeting[0] = u8::try_from(VERSION + 1).unwrap();
    framed.send(Bytes::from(greeting)).await.unwrap();
    let answer = Greeting::decode(&framed.next().await.unwrap().unwrap()).unwrap();
    let Greeting::Refused(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("version 2"), "{why}");
    assert!(framed.next().await.is_none());
}

#[tokio::test]
async fn nobody_speaks_for_another_node() {
    let cluster = Cluster::connected(["a", "b", "c"]).await;
    let mut framed = raw_as(&cluster, "b", "a").await;
    let ours = cluster.identities["b"].cluster().clone();
    let hello = Hello { cluster: ours, node: "c".into(), incarnation: 1 };
    framed.send(Greeting::Hello(hello).encode()).await.unwrap();
    let answer = Greeting::decode(&framed.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(answer, Greeting::Refused("c shows a certificate of b".into()));
}

#[tokio::test]
async fn a_member_at_the_wrong_address_is_refused() {
    let cluster = Cluster::apart(["a", "b", "c"]).await;
    let addresses = cluster.addresses();
    cluster["a"].mesh.set_peers([("b".into(), "127.0.0.1:1".into())].into());
    cluster["a"].is("b", LinkState::Refused).await;
    cluster["a"].mesh.set_peers([("b".into(), addresses[&"c".into()].clone())].into());
    let trouble = trouble_with(&cluster["a"], "b").await;
    assert!(trouble.contains("not valid for name"), "{trouble}");
}

/// More idle connections than strangers are allowed, and all kinds of garbage.
#[tokio::test]
async fn bad_clients_do_no_harm() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let address = cluster["a"].mesh.address();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 5000], &[22, 3, 1, 255, 255, 1], b""] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(garbage).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(LIMIT, read).await.unwrap();
    }
    // A member that announces more than a greeting may have, and one that sends no request.
    let mut framed = raw_as(&cluster, "b", "a").await;
    framed.get_mut().write_all(&[0x7f, 255, 255, 255, 0]).await.unwrap();
    assert!(!matches!(framed.next().await, Some(Ok(_))));

    let mut idle = Vec::new();
    for _ in 0..listen::STRANGERS_MAX + 10 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    cluster["b"].ask("a", "still there?").await.unwrap();
    cluster["b"].mesh.disconnect(&"a".into());
    cluster["b"]
        .links_to("a", |links| {
            links.first() == Some(&LinkState::Connected)
                && links.ends_with(&[LinkState::Connected])
                && links.len() > 1
        })
        .await;
    assert!(!cluster["b"].links.borrow()[&"a".into()].contains(&LinkState::Refused));
}

#[tokio::test]
async fn a_frame_that_is_none_ends_only_its_connection() {
    let cluster = Cluster::connected(["a", "b"]).await;
    let mut framed = raw_as(&cluster, "b", "a").await;
    let hello = cluster["b"].mesh.shared.hello();
    framed.send(hello.encode()).await.unwrap();
    let answer = framed.next().await.unwrap().unwrap();
    assert!(matches!(Greeting::decode(&answer), Ok(Greeting::Hello(_))));
    // This connection took the place of b's, which comes back by itself.
    cluster["b"].links_to("a", |links| links.len() == 3).await;
    let mut framed = raw_as(&cluster, "b", "a").await;
    framed.send(hello.encode()).await.unwrap();
    framed.next().await.unwrap().unwrap();
    framed.send(Bytes::from(&[250, 1, 2][..])).await.unwrap();
    assert!(!matches!(framed.next().await, Some(Ok(_))));
    cluster["b"].is("a", LinkState::Connected).await;
}

#[tokio::test]
async fn a_token_lets_a_node_join_the_mesh_once() {
    let mut cluster = Cluster::apart(["a"]).await;
    let desk = JoinDesk::open(&cluster.dir("a"), || "cluster = \"shop\"".into()).unwrap();
    let identity = cluster.identities["a"].clone();
    let a = Node::start_with(identity, free(), Some(Arc::new(desk))).await;
    let address = a.mesh.address().to_string();
    let token = mint_token(&cluster.dir("a"), &address, &"b".into()).unwrap();

    let joined = join(&token, &cluster.dir("b")).await.unwrap();
    assert_eq!(joined.configuration, "cluster = \"shop\"");
    let again = join(&token, &cluster.dir("b2")).await.unwrap_err();
    assert!(again.to_string().contains("used"), "{again}");

    let b = Node::start(Arc::new(joined.identity), free()).await;
    cluster.nodes = [("a".to_owned(), a), ("b".to_owned(), b)].into();
    for node in cluster.nodes.values() {
        node.mesh.set_peers(cluster.addresses());
    }
    cluster["a"].is("b", LinkState::Connected).await;
    cluster["b"].is("a", LinkState::Connected).await;
    cluster["b"].ask("a", "hello").await.unwrap();
}

#[tokio::test]
async fn a_node_without_the_authority_lets_nobody_in() {
    let cluster = Cluster::apart(["a"]).await;
    let address = cluster["a"].mesh.address().to_string();
    let token = mint_token(&cluster.dir("a"), &address, &"b".into()).unwrap();
    let error = join(&token, &cluster.dir("b")).await.unwrap_err();
    assert!(error.to_string().contains("cannot issue certificates"), "{error}");
}
