//! A door that speaks TLS, on a real node: certificates are renewed by files alone, and one that
//! cannot be used is said at a start and before.

use super::machines::Machines;
use super::{both, door};
use crate::traffic::Endpoint;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "shop.example";
const CODE: &str = "TDM0801";

/// The files of a certificate and its key.
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(dir: &Path) -> Self {
        Self { chain: dir.join("shop.crt"), key: dir.join("shop.key") }
    }

    /// Writes them anew; a client that believes just that certificate.
    fn issue(&self) -> Arc<ClientConfig> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        fs::write(&self.chain, made.cert.pem()).unwrap();
        fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.chain).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Whoever comes back by a ticket is shown no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// Whether a door answers whoever believes just that.
fn answers(machines: &Machines, node: &str, believed: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from(NAME).unwrap();
    let client = rustls::ClientConnection::new(Arc::clone(believed), name).unwrap();
    let Ok(stream) = TcpStream::connect(door(machines, node)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = rustls::StreamOwned::new(client, stream);
    let mut answer = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok()
        && answer.starts_with("HTTP/1.1 200 ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_by_files_and_wrong_ones_are_told() {
    let mut machines = Machines::new(&["a"]);
    let endpoints = [Endpoint::http('x').await, Endpoint::http('y').await];
    let dir = Path::new(&machines.config_path()).parent().unwrap().to_owned();
    let files = Files::of(&dir);
    let (chain, key) = (files.chain.display(), files.key.display());
    let more = format!("certificates = [{{ certificate = \"{chain}\", key = \"{key}\" }}]\n");
    let service = super::http::service(door(&machines, "a"), &both(&endpoints), &more);
    machines.write_nodes(&["a"]);
    let nodes = fs::read_to_string(machines.config_path()).unwrap();
    fs::write(machines.config_path(), nodes + &service).unwrap();
    // Whoever checks it elsewhere has none of its files.
    let said = Machines::run(&["config", "check", &machines.config_path()]);
    assert!(said.code == 0, "{said:?}");
    let first = files.issue();
    machines.init("a");
    machines.start("a");
    machines.wait("it speaks TLS", "a", || answers(&machines, "a", &first)).await;
    machines.took("founded with a certificate");
    let mut shown = first;
    // Twice, since what the cluster agrees on when it is founded has the files read as well.
    for _ in 0..2 {
        let renewed = files.issue();
        machines.wait("it shows the new one", "a", || answers(&machines, "a", &renewed)).await;
        assert!(!answers(&machines, "a", &shown));
        shown = renewed;
        machines.took("a certificate that is written anew is shown");
    }
    machines.stop("a");
    a_wrong_one_is_told_at_a_start_and_before(&mut machines, &files).await;
}

/// What a check of the file says on that machine, and why its node does not start.
async fn a_wrong_one_is_told_at_a_start_and_before(machines: &mut Machines, files: &Files) {
    let good = fs::read(&files.key).unwrap();
    let config = machines.config_path();
    let check = || Machines::run(&["config", "check", &config]);
    let said = check();
    assert!(said.code == 0 && !said.out.contains(CODE), "{said:?}");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    for (key, why) in [
        (Some(other.into_bytes()), "not the key of this certificate"),
        (Some(b"half a key".to_vec()), "shop.key: "),
        (None, "shop.key: "),
    ] {
        match &key {
            Some(key) => fs::write(&files.key, key).unwrap(),
            None => fs::remove_file(&files.key).unwrap(),
        }
        let said = check();
        assert!(said.code != 0 && said.err.contains(CODE) && said.err.contains(why), "{said:?}");
    }
    machines.start("a");
    machines.ends("a", CODE).await;
    let log = machines.log("a");
    assert!(log.contains("front door of service web cannot use a certificate"), "{log}");
    fs::write(&files.key, good).unwrap();
    machines.start("a");
    machines.reachable("a").await;
}
