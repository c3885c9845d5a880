//! Talks to the endpoints that a drill runs itself: processes of this program, outside of any node.
//! In: a `Kit`. Out: `Endpoints`, which can be killed, frozen and told how to answer.
//! Not here: what they do (`worker`).
//! Tested by: the drill itself.

use super::kit::{ENDPOINT_NAMES, Kit};
use crate::drill::Error;
use crate::drill::client::Http;
use crate::drill::worker::Behaviour;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// A busy machine takes a while to start a process.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All of a drill. They end with this.
#[derive(Debug)]
pub struct Endpoints {
    all: Mutex<Vec<Endpoint>>,
    kit: std::sync::Arc<Kit>,
}

#[derive(Debug)]
struct Endpoint {
    name: String,
    address: SocketAddr,
    child: Child,
}

impl Endpoints {
    /// Starts them, and waits until they answer.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(kit: std::sync::Arc<Kit>) -> Result<Self, Error> {
        let mut all = Vec::new();
        for (address, name) in kit.endpoints.iter().zip(ENDPOINT_NAMES) {
            let child = spawn(&kit, name, *address)?;
            all.push(Endpoint { name: name.to_owned(), address: *address, child });
        }
        for endpoint in &all {
            answers(endpoint.address).await?;
        }
        Ok(Self { all: Mutex::new(all), kit })
    }

    /// Where one is.
    pub fn address(&self, at: usize) -> Option<SocketAddr> {
        self.kit.endpoints.get(at).copied()
    }

    /// SIGKILL; its port refuses connections from then on.
    ///
    /// # Errors
    /// When there is no such endpoint, or it does not die.
    pub async fn kill(&self, at: usize) -> Result<(), Error> {
        let mut all = self.all.lock().await;
        let endpoint = all.get_mut(at).ok_or(Error::NoEndpoint { at })?;
        endpoint.child.kill().await.map_err(|source| Error::Process { source })
    }

    /// Starts it again after `kill`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&self, at: usize) -> Result<(), Error> {
        let mut all = self.all.lock().await;
        let endpoint = all.get_mut(at).ok_or(Error::NoEndpoint { at })?;
        endpoint.child = spawn(&self.kit, &endpoint.name, endpoint.address)?;
        answers(endpoint.address).await
    }

    /// SIGSTOP, or SIGCONT.
    ///
    /// # Errors
    /// When there is no such endpoint.
    pub async fn signal(&self, at: usize, signal: Signal) -> Result<(), Error> {
        let all = self.all.lock().await;
        let id = all.get(at).and_then(|endpoint| endpoint.child.id());
        let Some(pid) = id else { return Err(Error::NoEndpoint { at }) };
        kill(Pid::from_raw(pid.cast_signed()), signal)
            .map_err(|source| Error::Process { source: source.into() })
    }

    /// Tells it how to answer from now on.
    ///
    /// # Errors
    /// When it does not take it.
    pub async fn behave(&self, at: usize, how: Behaviour) -> Result<(), Error> {
        let address = self.address(at).ok_or(Error::NoEndpoint { at })?;
        let path = format!("/drill/{}", how.word());
        match timeout(ANSWER_MAX, ask_once(address, &path)).await {
            Ok(Some(200)) => Ok(()),
            _ => Err(Error::Deaf { address }),
        }
    }

    /// Makes all of them run and answer well, whatever was done to them.
    pub async fn mend(&self) {
        for at in 0..self.kit.endpoints.len() {
            let _ = self.signal(at, Signal::SIGCONT).await;
            if self.behave(at, Behaviour::Well).await.is_err() {
                let _ = self.kill(at).await;
                let _ = self.restart(at).await;
            }
        }
    }
}

fn spawn(kit: &Kit, name: &str, address: SocketAddr) -> Result<Child, Error> {
    Command::new(kit.exe())
        .arg("drill-service")
        .arg("--ledger")
        .arg(kit.ledger())
        .args(["--name", name, "--listen", &address.to_string()])
        // A drill that is killed ends nothing: its end of the pipe closes, and that ends this.
        .arg("--attended")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Its own group, so that Ctrl-C at our terminal does not reach it before us.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Process { source })
}

async fn ask_once(address: SocketAddr, path: &str) -> Option<u16> {
    let mut http = Http::connect(address).await?;
    Some(http.ask("GET", path).await?.status)
}

async fn answers(address: SocketAddr) -> Result<(), Error> {
    let up = async {
        while ask_once(address, "/healthz").await.is_none() {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(ANSWER_MAX, up).await.map_err(|_| Error::Deaf { address })
}
