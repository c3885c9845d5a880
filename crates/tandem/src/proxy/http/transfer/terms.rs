//! Names what a transfer is told, and how it may end.
//! Not here: what an end means (`exchange.rs`).

use crate::proxy::balancer::group::Group;
use crate::proxy::balancer::member::Member;
use crate::proxy::balancer::member::leaving::Over;
use crate::proxy::balancer::member::progress::Progress;
use crate::proxy::balancer::owners::Routed;
use crate::proxy::http::HttpConfig;
use crate::proxy::http::session::Order;
use crate::proxy::http::wire::request;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::http) enum End {
    /// The response went through.
    Done {
        /// The endpoint's connection is between two requests.
        is_reusable: bool,
        /// The client's connection is.
        keep_alive: bool,
    },
    /// Both sides changed to another protocol.
    Switched,
    /// The client closed its connection or takes nothing.
    Left,
    /// The client's body is refused.
    Refused(request::Refusal),
    /// The endpoint's connection broke.
    Broke,
    /// The endpoint's response is none.
    Nonsense(&'static str),
    /// The endpoint's response is one that its client cannot be given. A client can bring that
    /// about, by what it asks for: no fault of the endpoint's.
    Unfit(&'static str),
    /// The endpoint took too long.
    Late,
    /// The request's own time is over, of which the endpoint had the smaller part: it was held,
    /// waited in line, or its client was slow.
    Overdue,
    /// The endpoint gets no more work, and had time enough for this; or whoever had it is gone.
    Cut(Over),
    /// The endpoint did nothing: what the request belongs to is not its own. The client has seen
    /// nothing of that, and all of the request is there to be sent once more.
    Misdirected,
}

/// What the exchange knows, and its transfer has to.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy::http) struct Terms<'a> {
    pub(in crate::proxy::http) config: &'a HttpConfig,
    pub(in crate::proxy::http) idle_timeout: Duration,
    pub(in crate::proxy::http) member: &'a Member,
    /// Told how far the answer is.
    pub(in crate::proxy::http) progress: &'a Progress,
    pub(in crate::proxy::http) order: Order,
    /// To set in the response.
    pub(in crate::proxy::http) cookie: Option<&'a str>,
    /// As what the endpoint gets it, where work has owners; told once it takes it.
    pub(in crate::proxy::http) routed: Option<(&'a Group, Routed)>,
    /// When everything has to be over.
    pub(in crate::proxy::http) total: Option<Instant>,
    /// Cancelled when the balancer is about to close.
    pub(in crate::proxy::http) closing: &'a CancellationToken,
}
