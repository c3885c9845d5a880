//! An endpoint that speaks HTTP/2, and does as its requests say.

use crate::proxy::http::Certificate;
use crate::proxy::http::tests::support::LIMIT;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

#[derive(Clone)]
pub struct H2Server {
    pub address: SocketAddr,
    /// Method, path and fields of what it was asked.
    pub asked: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<AtomicU64>,
    /// Bytes that went out in crumbs.
    pub crumbs: Arc<AtomicU64>,
    /// Of each response that ended late, whether somebody wanted it to its end.
    pub wanted: Arc<Mutex<Vec<bool>>>,
    /// It is about to close the connections that it has.
    pub leaving: Arc<Notify>,
    streams_max: u32,
    supervisor: Supervisor,
}

impl H2Server {
    pub async fn start(supervisor: &Supervisor, streams_max: u32) -> Self {
        Self::listen(supervisor, streams_max, None).await
    }

    pub async fn encrypted(supervisor: &Supervisor, tls: rustls::ServerConfig) -> Self {
        Self::listen(supervisor, 100, Some(tls)).await
    }

    async fn listen(
        supervisor: &Supervisor,
        streams_max: u32,
        tls: Option<rustls::ServerConfig>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::default(),
            crumbs: Arc::default(),
            wanted: Arc::default(),
            leaving: Arc::default(),
            streams_max,
            supervisor: supervisor.clone(),
        };
        let tls = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
        let own = server.clone();
        supervisor.spawn("h2 server", TaskKind::Session, async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (server, tls) = (own.clone(), tls.clone());
                own.connections.fetch_add(1, Ordering::Relaxed);
                own.supervisor.spawn("h2 connection", TaskKind::Session, async move {
                    match tls {
                        None => server.serve(tcp).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                server.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    pub fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(self.streams_max).enable_connect_protocol();
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        let mut is_leaving = false;
        let mut leaving = std::pin::pin!(self.leaving.notified());
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = leaving.as_mut(), if !is_leaving => {
                    is_leaving = true;
                    connection.graceful_shutdown();
                    continue;
                }
            };
            let Some(Ok((request, respond))) = accepted else { return };
            let head = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
            self.asked.lock().unwrap().push(head.clone());
            match request.uri().path() {
                "/hang-up" => return,
                "/crumbs" => {
                    let crumbs = crumbs(respond, Arc::clone(&self.crumbs));
                    self.supervisor.spawn("h2 crumbs", TaskKind::Session, crumbs);
                }
                "/late-end" => {
                    let ends = ends_late(respond, Arc::clone(&self.wanted));
                    self.supervisor.spawn("h2 late end", TaskKind::Session, ends);
                }
                _ => {
                    let answer = answer(request, respond, head);
                    self.supervisor.spawn("h2 stream", TaskKind::Session, answer);
                }
            }
        }
    }
}

/// Sends byte by byte, each in a frame of its own, as far as it may.
async fn crumbs(mut respond: SendResponse<Bytes>, sent: Arc<AtomicU64>) {
    let mut out = respond.send_response(status(200), false).unwrap();
    loop {
        out.reserve_capacity(1);
        let Some(Ok(_)) = poll_fn(|cx| out.poll_capacity(cx)).await else { return };
        if out.send_data(Bytes::from_static(b"."), false).is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Says all, and that it was all a moment later.
async fn ends_late(mut respond: SendResponse<Bytes>, wanted: Arc<Mutex<Vec<bool>>>) {
    let head = Response::builder().header("content-length", 5).body(()).unwrap();
    let mut out = respond.send_response(head, false).unwrap();
    out.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let reset = poll_fn(|cx| out.poll_reset(cx));
    let reset = tokio::time::timeout(std::time::Duration::from_millis(30), reset).await;
    wanted.lock().unwrap().push(reset.is_err());
    let _ = out.send_data(Bytes::new(), true);
}

fn status(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, head: String) {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    let ok = |respond: &mut SendResponse<Bytes>| respond.send_response(status(200), false);
    match path.as_str() {
        "/refused" => respond.send_reset(Reason::REFUSED_STREAM),
        "/refused-late" => {
            let _ = body.data().await;
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        "/reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/never" => sleep(LIMIT).await,
        "/half" => {
            let mut out = ok(&mut respond).unwrap();
            out.send_data(Bytes::from_static(b"half"), false).unwrap();
            // A reset overtakes what has not left: whoever asked says that it came.
            while body.data().await.is_some() {}
            out.send_reset(Reason::INTERNAL_ERROR);
        }
        "/hints" => {
            respond.send_informational(status(103)).unwrap();
            let mut out = ok(&mut respond).unwrap();
            out.send_data(Bytes::from_static(b"a"), true).unwrap();
        }
        "/grpc-error" => {
            let mut response = status(200);
            response.headers_mut().insert("grpc-status", "5".parse().unwrap());
            respond.send_response(response, true).unwrap();
        }
        // It says how long it is, and has trailers all the same.
        "/counted" | "/announced" => {
            let head = Response::builder().header("content-length", 5);
            let is_announced = path == "/announced";
            let head = if is_announced { head.header("trailer", "sum") } else { head };
            let mut out = respond.send_response(head.body(()).unwrap(), false).unwrap();
            out.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("sum", "7".parse().unwrap());
            out.send_trailers(trailers).unwrap();
        }
        "/empty" => _ = respond.send_response(status(204), true),
        "/500" => _ = respond.send_response(status(500), true),
        "/big" => {
            let mut response = status(200);
            response.headers_mut().insert("content-length", "3000000".parse().unwrap());
            let mut out = respond.send_response(response, false).unwrap();
            out.send_data(Bytes::from(vec![b'.'; 3_000_000]), true).unwrap();
        }
        "/head" => {
            let mut out = ok(&mut respond).unwrap();
            out.send_data(Bytes::from(head), true).unwrap();
        }
        // What comes goes back as it comes: a call of gRPC, or a WebSocket.
        "/echo" | "/ws" | "/udp" => {
            let mut out = ok(&mut respond).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if out.send_data(data, false).is_err() {
                    return;
                }
            }
            let came = body.trailers().await.ok().flatten();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.extend(came.unwrap_or_default());
            let _ = out.send_trailers(trailers);
        }
        _ => {
            let mut out = ok(&mut respond).unwrap();
            out.send_data(Bytes::from_static(b"a"), true).unwrap();
        }
    }
}

/// How an endpoint shows a certificate.
pub fn shows(certificate: &Certificate, protocol: &[u8]) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_file(&certificate.chain).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}
