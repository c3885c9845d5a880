//! A client that speaks HTTP/2.

use crate::proxy::balancer::Balancer;
use crate::proxy::http::tests::support::LIMIT;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://shop.example{path}")).body(()).unwrap()
}

pub struct H2 {
    send: SendRequest<Bytes>,
    over: watch::Receiver<bool>,
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub interim: Vec<u16>,
    pub status: u16,
    pub head: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn trailer(&self, name: &str) -> Option<String> {
        let value = self.trailers.as_ref()?.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }
}

/// A request that was begun.
pub struct Sending {
    response: ResponseFuture,
    pub body: SendStream<Bytes>,
    pub interim: Vec<u16>,
    pub status: u16,
    pub fields: HeaderMap,
}

impl H2 {
    pub async fn connect(supervisor: &Supervisor, balancer: &Balancer) -> Self {
        let tcp = TcpStream::connect(balancer.local_address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(supervisor, tcp).await
    }

    pub async fn over<S>(supervisor: &Supervisor, stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // One stream that nobody reads shall not keep the others waiting.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(1 << 20);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        let (tell, over) = watch::channel(false);
        supervisor.spawn("h2 client", TaskKind::Session, async move {
            let _ = connection.await;
            tell.send_replace(true);
        });
        Self { send, over }
    }

    pub fn is_gone(&self) -> bool {
        *self.over.borrow()
    }

    /// Waits until its connection is over.
    pub async fn gone(&self) {
        let mut over = self.over.clone();
        let _ = timeout(LIMIT, over.wait_for(|over| *over)).await.expect("an end");
    }

    async fn begin(&self, request: Request<()>, is_all: bool) -> Sending {
        let mut send = timeout(LIMIT, self.send.clone().ready()).await.unwrap().unwrap();
        let (response, body) = send.send_request(request, is_all).unwrap();
        Sending { response, body, interim: Vec::new(), status: 0, fields: HeaderMap::new() }
    }

    /// Begins a request, whose body goes on.
    pub async fn send(&self, request: Request<()>, pieces: &[&[u8]]) -> Sending {
        let is_get = request.method() == "GET";
        let mut sending = self.begin(request, is_get).await;
        for piece in pieces {
            sending.piece(piece).await;
        }
        sending
    }

    pub async fn ask(&self, request: Request<()>) -> Result<Answer, h2::Error> {
        self.begin(request, true).await.answer().await
    }

    pub async fn post(
        &self,
        path: &str,
        pieces: &[&[u8]],
        trailers: Option<HeaderMap>,
    ) -> Result<Answer, h2::Error> {
        let request = Request::post(format!("http://a{path}")).body(()).unwrap();
        let mut sending = self.send(request, pieces).await;
        match trailers {
            Some(trailers) => sending.body.send_trailers(trailers).unwrap(),
            None => sending.body.send_data(Bytes::new(), true).unwrap(),
        }
        sending.answer().await
    }

    /// Sends while it receives.
    pub async fn upload(
        &self,
        request: Request<()>,
        pieces: &[&[u8]],
    ) -> Result<Answer, h2::Error> {
        let mut sending = self.send(request, pieces).await;
        sending.body.send_data(Bytes::new(), true).unwrap();
        sending.answer().await
    }

    pub async fn websocket(&self, path: &str) -> Sending {
        self.open(path, "websocket").await
    }

    /// By extended CONNECT.
    pub async fn open(&self, path: &str, protocol: &'static str) -> Sending {
        let mut send = self.send.clone();
        // The settings of the other side have to be there.
        while !send.is_extended_connect_protocol_enabled() {
            self.ask(get("/")).await.unwrap();
        }
        send = send.ready().await.unwrap();
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("http://a{path}"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        let (response, body) = send.send_request(request, false).unwrap();
        Sending { response, body, interim: Vec::new(), status: 0, fields: HeaderMap::new() }
    }
}

impl Sending {
    async fn piece(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            self.body.reserve_capacity(piece.len());
            let body = &mut self.body;
            let room = timeout(LIMIT, poll_fn(|cx| body.poll_capacity(cx))).await.expect("room");
            let Some(Ok(room)) = room else { return };
            let (now, rest) = piece.split_at(room.min(piece.len()));
            self.body.send_data(Bytes::copy_from_slice(now), false).unwrap();
            piece = rest;
        }
    }

    /// Waits for the head.
    pub async fn head(&mut self) -> Result<RecvStream, h2::Error> {
        let wait = async {
            while let Some(interim) = poll_fn(|cx| self.response.poll_informational(cx)).await {
                self.interim.push(interim?.status().as_u16());
            }
            (&mut self.response).await
        };
        let response = timeout(LIMIT, wait).await.expect("a head")?;
        self.status = response.status().as_u16();
        self.fields = response.headers().clone();
        Ok(response.into_body())
    }

    /// Waits for all of it.
    pub async fn response(&mut self) -> Result<Answer, h2::Error> {
        let mut stream = self.head().await?;
        let mut body = Vec::new();
        let read = async {
            while let Some(data) = stream.data().await {
                let data = data?;
                body.extend_from_slice(&data);
                stream.flow_control().release_capacity(data.len())?;
            }
            stream.trailers().await
        };
        let trailers = timeout(LIMIT, read).await.expect("an end")?;
        Ok(Answer {
            interim: self.interim.clone(),
            status: self.status,
            head: self.fields.clone(),
            body: String::from_utf8_lossy(&body).into_owned(),
            trailers,
        })
    }

    pub async fn answer(mut self) -> Result<Answer, h2::Error> {
        self.response().await
    }
}
