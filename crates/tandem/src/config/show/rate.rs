//! Tells the rates of a balanced service.
//! In: `RateLimit`. Out: keys below its table, and values as they would be written.

use super::key;
use crate::config::valid::RateLimit;
use crate::config::value::print_rate;
use tandem_core::clustering::load_balanced::rate::Limit;

type Value = (String, Option<String>);

pub(super) fn values(of: Option<&RateLimit>, is_http: bool, values: &mut Vec<Value>) {
    let path = |name: &str| format!("rate_limit.{name}");
    values.push(("rate_limit".to_owned(), of.map(|_| "on".to_owned())));
    let Some(RateLimit { limits, key }) = of else { return };
    let rate = |limit: Option<Limit>| limit.map(|it| print_rate(it.count, it.per));
    let burst = |limit: Option<Limit>| limit.map(|it| it.burst.to_string());
    values.push((path("per_client"), rate(limits.per_client)));
    values.push((path("burst"), burst(limits.per_client)));
    values.push((path("total"), rate(limits.total)));
    values.push((path("total_burst"), burst(limits.total)));
    if is_http {
        key::values("rate_limit.key", key.as_ref(), values);
    }
}
