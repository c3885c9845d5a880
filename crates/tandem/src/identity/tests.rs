//! Identities in folders, and joins through a bare acceptor.

use super::token::mint_until;
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

fn names<const N: usize>(names: [&str; N]) -> Vec<NodeId> {
    names.map(NodeId::from).into()
}

fn cluster_of<const N: usize>(nodes: [&str; N]) -> (TempDir, Vec<Identity>) {
    let root = TempDir::new().unwrap();
    let identities = create_many(root.path(), "shop", &names(nodes)).unwrap();
    (root, identities)
}

#[test]
fn nodes_of_one_cluster_share_its_id_and_passwords() {
    let (root, identities) = cluster_of(["a", "b"]);
    let [a, b] = identities.as_slice() else { panic!("two") };
    assert_eq!((a.node().as_str(), b.node().as_str()), ("a", "b"));
    assert_eq!(a.cluster(), b.cluster());
    assert_eq!(a.cluster().as_str().len(), 32);
    let password = |identity: &Identity, service: &str, role| {
        identity.password(&ServiceId::from(service), role)
    };
    assert_eq!(password(a, "orders", "tandem"), password(b, "orders", "tandem"));
    assert_eq!(password(a, "orders", "tandem").len(), 43);
    assert_ne!(password(a, "orders", "tandem"), password(a, "orders", "app"));
    assert_ne!(password(a, "orders", "tandem"), password(a, "stock", "tandem"));
    assert!(root.path().join("a/identity/ca.key").exists());
    assert!(!root.path().join("b/identity/ca.key").exists());
}

/// A node that founds must not be taken for one that joined, nor the other way round.
#[test]
fn only_a_node_that_was_let_in_is_joined() {
    let (root, identities) = cluster_of(["a", "b"]);
    assert!(identities.iter().all(|identity| !identity.joined()));
    fs::write(root.path().join("b/identity/joined"), "").unwrap();
    assert!(Identity::load(&root.path().join("b")).unwrap().joined());
}

#[test]
fn files_are_for_their_owner_only() {
    let (root, _) = cluster_of(["a"]);
    let folder = root.path().join("a/identity");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 6);
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    assert!(!root.path().join("a/identity.new").exists());
}

#[test]
fn an_identity_is_never_replaced() {
    let (root, _) = cluster_of(["a"]);
    let dir = root.path().join("a");
    let again = create_cluster(&dir, "shop", &"a".into());
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    let again = create_node(&dir, &"b".into(), &dir);
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
}

/// H36: what a crash left behind is no identity, and does not hinder the next attempt.
#[test]
fn an_interrupted_creation_is_repeated() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("identity.new")).unwrap();
    fs::write(dir.path().join("identity.new/node.key"), "half").unwrap();
    assert!(!Identity::exists(dir.path()));
    assert!(matches!(Identity::load(dir.path()), Err(Error::Missing { .. })));
    create_cluster(dir.path(), "shop", &"a".into()).unwrap();
    assert!(Identity::exists(dir.path()));
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let (root, identities) = cluster_of(["a"]);
    let text = format!("{:?}", identities[0]);
    assert!(text.ends_with("node: a, .. }"), "{text}");
    let token = mint_token(&root.path().join("a"), "127.0.0.1:1", &"b".into()).unwrap();
    let text = format!("{token:?}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn an_exposed_key_is_refused() {
    let (root, _) = cluster_of(["a"]);
    let key = root.path().join("a/identity/node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = Identity::load(&root.path().join("a")).unwrap_err();
    assert!(matches!(error, Error::Exposed { mode: 0o644, .. }), "{error}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let (root, _) = cluster_of(["a", "b"]);
    let file = |node: &str, name: &str| root.path().join(node).join("identity").join(name);
    fs::copy(file("b", "node.key"), file("a", "node.key")).unwrap();
    let error = Identity::load(&root.path().join("a")).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");

    // H35: the certificate and the folder must say the same cluster.
    fs::write(file("b", "cluster-id"), "0".repeat(32)).unwrap();
    let error = Identity::load(&root.path().join("b")).unwrap_err();
    assert!(matches!(&error, Error::Damaged { why, .. } if why.contains("cluster-id")), "{error}");
}

#[test]
fn names_that_cannot_stand_in_a_certificate_are_refused() {
    for name in ["", "-a", "a-", "a.b", "ä", "a b", "*", &"a".repeat(64)] {
        let root = TempDir::new().unwrap();
        let error = create_cluster(root.path(), "shop", &name.into()).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{name}: {error}");
    }
    for name in ["a", "db-1", "DB_1", "10"] {
        let root = TempDir::new().unwrap();
        let identity = create_cluster(root.path(), "shop", &name.into()).unwrap();
        assert_eq!(identity.node().as_str(), name);
        identity.server_name(&name.into()).unwrap();
    }
}

/// H35: another cluster's certificate speaks for nobody here.
#[test]
fn a_certificate_speaks_for_its_node_in_its_cluster_only() {
    let (_root, ours) = cluster_of(["a", "b"]);
    let (_other, theirs) = cluster_of(["a"]);
    assert_eq!(ours[0].node_of(&ours[1].tls.chain[0]), Some("b".into()));
    assert_eq!(ours[0].node_of(&theirs[0].tls.chain[0]), None);
    assert_eq!(ours[0].node_of(&ours[0].tls.ca[0]), None);
    assert_eq!(ours[0].node_of(&CertificateDer::from(b"garbage".to_vec())), None);
}

#[test]
fn a_token_is_one_string() {
    let (root, _) = cluster_of(["a"]);
    let token = mint_token(&root.path().join("a"), "10.0.0.1:7400", &"b".into()).unwrap();
    let text = token.to_string();
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");
    assert_eq!(text.parse(), Ok(token));
    assert_eq!(text[..text.len() - 1].parse::<JoinToken>(), Err(TokenFlaw::Incomplete));
    assert_eq!("".parse::<JoinToken>(), Err(TokenFlaw::Incomplete));
    assert_eq!("garbage!".parse::<JoinToken>(), Err(TokenFlaw::Incomplete));
}

#[test]
fn only_the_authority_mints() {
    let (root, _) = cluster_of(["a", "b"]);
    let error = mint_token(&root.path().join("b"), "x:1", &"c".into()).unwrap_err();
    assert!(matches!(error, Error::NoAuthority { .. }), "{error}");
    let error = JoinDesk::open(&root.path().join("b"), String::new).unwrap_err();
    assert!(matches!(error, Error::NoAuthority { .. }), "{error}");
}

/// A member with a desk that answers `clients` joins.
struct Member {
    root: TempDir,
    identity: Identity,
    desk: Arc<JoinDesk>,
    listener: TcpListener,
}

impl Member {
    async fn start() -> Self {
        let (root, mut identities) = cluster_of(["a"]);
        let desk = JoinDesk::open(&root.path().join("a"), || "the configuration".into()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { root, identity: identities.remove(0), desk: Arc::new(desk), listener }
    }

    fn token(&self, node: &str, expires: u64) -> JoinToken {
        let address = self.listener.local_addr().unwrap().to_string();
        mint_until(&self.root.path().join("a"), &address, &node.into(), expires).unwrap()
    }

    async fn let_in(&self, token: &JoinToken, dir: &str) -> Result<Joined, Error> {
        let serve = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(self.identity.join_server());
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = self.desk.clone().serve(stream).await;
            }
        };
        let dir = self.root.path().join(dir);
        let (joined, ()) = tokio::join!(join(token, &dir), serve);
        joined
    }
}

const FAR: u64 = 1 << 40;

#[tokio::test]
async fn a_token_lets_its_node_in_once() {
    let member = Member::start().await;
    let token = member.token("b", FAR).to_string().parse().unwrap();
    let joined = member.let_in(&token, "b").await.unwrap();
    assert_eq!(joined.configuration, "the configuration");
    assert_eq!(joined.identity.node().as_str(), "b");
    assert_eq!(joined.identity.cluster(), member.identity.cluster());
    let service = "orders".into();
    assert_eq!(
        joined.identity.password(&service, "app"),
        member.identity.password(&service, "app")
    );
    assert_eq!(fs::read_dir(member.root.path().join("a/identity/tokens")).unwrap().count(), 0);

    let again = member.let_in(&token, "b2").await.unwrap_err();
    assert!(matches!(&again, Error::Refused { why } if why.contains("used")), "{again}");
    assert!(!Identity::exists(&member.root.path().join("b2")));
    let occupied = join(&token, &member.root.path().join("b")).await.unwrap_err();
    assert!(matches!(occupied, Error::Exists { .. }), "{occupied}");
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let member = Member::start().await;
    let token = member.token("b", 1);
    let error = member.let_in(&token, "b").await.unwrap_err();
    assert!(matches!(&error, Error::Refused { why } if why.contains("expired")), "{error}");
}

#[tokio::test]
async fn a_token_is_for_the_node_it_names() {
    let member = Member::start().await;
    let token = member.token("b", FAR);
    let forged = JoinToken { node: "c".into(), ..token.clone() };
    let error = member.let_in(&forged, "c").await.unwrap_err();
    assert!(matches!(&error, Error::Refused { why } if why.contains("another node")), "{error}");
    // It was not used up by that.
    member.let_in(&token, "b").await.unwrap();
}

#[tokio::test]
async fn a_member_of_another_cluster_is_not_believed() {
    let (member, other) = (Member::start().await, Member::start().await);
    let token = JoinToken { address: other.token("b", FAR).address, ..member.token("b", FAR) };
    let error = other.let_in(&token, "b").await.unwrap_err();
    assert!(matches!(error, Error::Unreached { .. }), "{error}");
    // The secret was not shown to it.
    member
        .let_in(&JoinToken { address: member.token("x", FAR).address, ..token }, "b")
        .await
        .unwrap();
}

#[tokio::test]
async fn wrong_attempts_are_bounded() {
    let member = Member::start().await;
    let token = member.token("b", FAR);
    let forged = JoinToken { secret: [0; 32], ..token.clone() };
    for _ in 0..10 {
        let error = member.let_in(&forged, "b").await.unwrap_err();
        assert!(matches!(&error, Error::Refused { why } if why.contains("unknown")), "{error}");
    }
    let error = member.let_in(&token, "b").await.unwrap_err();
    assert!(matches!(&error, Error::Refused { why } if why.contains("too many")), "{error}");
}
