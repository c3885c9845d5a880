//! Tells what happens to endpoints, as this node's own balancers see them.
//! In: what balancers cut. Out: `Draft`s.

use crate::proxy::balancer::Cut;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::Draft;
use tandem_core::ids::ServiceId;

/// What an endpoint had that gets no more work.
pub(in crate::node::operations) fn cut(service: &ServiceId, cut: &Cut) -> Draft {
    let Cut { address, upstream, count } = cut;
    let message =
        format!("{count} left at {upstream} were cut: it gets no more, and drain_max is over");
    Draft::new(EventKind::EndpointCut, message)
        .service(service)
        .field("address", address.to_string())
        .field("upstream", upstream.as_str())
        .field("count", *count)
}
