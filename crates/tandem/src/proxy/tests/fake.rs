//! A server that speaks just enough of the protocol, and misbehaves on command.

use super::{message, query};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What it does with a StartupMessage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Accept,
    /// 57P03, as a server in recovery.
    NotNow,
    /// Says nothing and keeps the connection.
    Silent,
    /// Closes the connection.
    Close,
    /// Accepts, once `answer` is notified.
    OnNotice,
}

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) secret: Vec<u8>,
    pub(super) state: Arc<State>,
}

pub(super) struct State {
    pub(super) login: Mutex<Login>,
    /// Users, in the order in which their startup packets came.
    pub(super) users: Mutex<Vec<String>>,
    pub(super) cancels: Mutex<Vec<Vec<u8>>>,
    pub(super) answer: Notify,
    pub(super) unanswered: AtomicUsize,
    pub(super) queries: AtomicUsize,
}

impl Fake {
    pub(super) async fn start(supervisor: &Supervisor) -> Self {
        Self::with_secret(supervisor, vec![1, 2, 3, 4]).await
    }

    pub(super) async fn with_secret(supervisor: &Supervisor, secret: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            login: Mutex::new(Login::Accept),
            users: Mutex::default(),
            cancels: Mutex::default(),
            answer: Notify::new(),
            unanswered: AtomicUsize::new(0),
            queries: AtomicUsize::new(0),
        });
        let shared = (supervisor.clone(), Arc::clone(&state), secret.clone());
        supervisor.spawn("fake", TaskKind::Session, async move {
            let (supervisor, state, secret) = shared;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, secret) = (Arc::clone(&state), secret.clone());
                supervisor.spawn("fake session", TaskKind::Session, async move {
                    let _ = serve(stream, &state, &secret).await;
                });
            }
        });
        Self { address, secret, state }
    }

    pub(super) fn login(&self, login: Login) {
        *self.state.login.lock().unwrap() = login;
    }

    pub(super) fn users(&self) -> Vec<String> {
        self.state.users.lock().unwrap().clone()
    }

    pub(super) fn cancels(&self) -> Vec<Vec<u8>> {
        self.state.cancels.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, state: &State, secret: &[u8]) -> std::io::Result<()> {
    let length = stream.read_u32().await? as usize;
    let mut rest = vec![0; length - 4];
    stream.read_exact(&mut rest).await?;
    if rest[..4] == 80_877_102u32.to_be_bytes() {
        state.cancels.lock().unwrap().push(rest[4..].to_vec());
        return Ok(());
    }
    let user = rest[4..].split(|byte| *byte == 0).nth(1).unwrap_or_default();
    let user = String::from_utf8_lossy(user).into_owned();
    state.users.lock().unwrap().push(user.clone());
    state.unanswered.fetch_add(1, Ordering::SeqCst);
    let login = *state.login.lock().unwrap();
    match login {
        Login::Accept => {}
        Login::NotNow => {
            stream.write_all(&message(b'E', b"SFATAL\0C57P03\0Mstarting up\0\0")).await?;
            return Ok(());
        }
        Login::Silent => {
            stream.read_u8().await?;
            return Ok(());
        }
        Login::Close => return Ok(()),
        Login::OnNotice => state.answer.notified().await,
    }
    state.unanswered.fetch_sub(1, Ordering::SeqCst);
    let key = [&7u32.to_be_bytes()[..], secret].concat();
    let hello = [message(b'R', &[0; 4]), message(b'K', &key), message(b'Z', b"I")].concat();
    stream.write_all(&hello).await?;
    converse(&mut stream, state).await
}

/// Answers each query by its text.
async fn converse(stream: &mut TcpStream, state: &State) -> std::io::Result<()> {
    let done = [message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat();
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await? as usize - 4;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        if kind == b'X' {
            return Ok(());
        }
        state.queries.fetch_add(1, Ordering::SeqCst);
        match body.split(|byte| *byte == 0).next().unwrap_or_default() {
            b"hang" => {}
            b"freeze" => std::future::pending().await,
            b"half" => stream.write_all(&message(b'D', &[0; 100])[..50]).await?,
            b"leave" => return Ok(()),
            b"answer and leave" => return stream.write_all(&done).await,
            b"local" => {
                let warning = b"SWARNING\0C01000\0Mcanceling\0RSyncRepWaitForLSN\0\0";
                stream.write_all(&[message(b'N', warning), done.clone()].concat()).await?;
            }
            b"rows" => {
                let row = message(b'D', &[7; 3001]);
                for _ in 0..5000 {
                    stream.write_all(&row).await?;
                }
                stream.write_all(&done).await?;
            }
            b"bad length" => stream.write_all(b"D\xff\xff\xff\xff").await?,
            _ => stream.write_all(&done).await?,
        }
    }
}

#[test]
fn a_query_is_framed() {
    assert_eq!(query("x"), b"Q\0\0\0\x06x\0");
}
