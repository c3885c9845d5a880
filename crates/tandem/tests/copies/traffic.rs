//! Clients that ask without a pause, each on a connection that it keeps as long as it can, and what
//! they were told.

use crate::app::Who;
use crate::crowd::{Crowd, Shared};
use crate::http;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;

const CLIENTS: usize = 4;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// What may be sent twice.
    Gets,
    /// Also what may not.
    All,
    /// The same, each on a connection of its own.
    Singly,
}

/// Who answered, and how often.
type Counts = BTreeMap<Who, u64>;

pub struct Traffic(Crowd<Counts>);

impl Traffic {
    pub fn start(doors: &[SocketAddr], asks: Asks) -> Self {
        let all = doors.iter().flat_map(|door| (0..CLIENTS).map(|number| (*door, number)));
        Self(Crowd::start(all.map(|(door, number)| {
            let posts = asks != Asks::Gets && number % 2 == 1;
            move |shared: Arc<Shared<Counts>>| async move {
                let mut connection = None;
                while shared.goes_on() {
                    let answer = ask(&mut connection, door, posts).await;
                    if asks == Asks::Singly {
                        connection = None;
                    }
                    let answer = answer.map_err(|why| format!("{door} post {posts}: {why}"));
                    shared.note(
                        answer.map(|who| move |by: &mut Counts| *by.entry(who).or_default() += 1),
                    );
                }
            }
        })))
    }

    /// Goes on until so many more were answered, one way or the other.
    pub async fn more(&self, count: u64) {
        self.0.more(count).await;
    }

    /// Goes on until copies of so many nodes have answered.
    pub async fn heard_of(&self, nodes: usize) {
        self.heard(|by| by.keys().map(|who| &who.node).collect::<BTreeSet<_>>().len() >= nodes)
            .await;
    }

    /// Goes on until this is true of who has answered, and how often. A copy that failed counts as
    /// slow for a while, so that others are asked first.
    pub async fn heard(&self, is_so: impl Fn(&Counts) -> bool) {
        self.0.until(is_so).await;
    }

    /// Ends it: nobody was told anything wrong. Who answered, and how often.
    pub async fn end(self, what: &str) -> Counts {
        let told = self.0.end(what).await;
        assert!(told.wrong.is_empty(), "{what}: {:#?}", told.wrong);
        told.all
    }
}

/// Asks once, on a new connection where the last one was closed in between two requests.
pub async fn ask(
    connection: &mut Option<TcpStream>,
    door: SocketAddr,
    posts: bool,
) -> Result<Who, String> {
    let request = if posts {
        "POST /work HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nwork"
    } else {
        "GET /work HTTP/1.1\r\nHost: shop\r\n\r\n"
    };
    let (head, body) = http::ask(connection, door, request).await?;
    Who::parse(&body).ok_or(format!("{head} {body}"))
}
