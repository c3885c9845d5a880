//! Tells every value that only a service of kind http has.
//! In: `Http`. Out: keys below its table, and values as they would be written.

use super::key;
use crate::config::valid::{Balanced, Certificate, Http};
use crate::config::value::{print_bytes, print_duration};

type Value = (String, Option<String>);

/// What clients are shown.
pub(super) fn certificates(of: &[Certificate], values: &mut Vec<Value>) {
    let file = |path: &std::path::Path| path.display().to_string();
    let all: Vec<String> = of.iter().map(|it| file(&it.certificate)).collect();
    values.push(("certificates".to_owned(), (!all.is_empty()).then(|| all.join(", "))));
    for (at, Certificate { certificate, key }) in of.iter().enumerate() {
        let of = |name: &str| format!("certificates.{}.{name}", at + 1);
        values.push((of("certificate"), Some(file(certificate))));
        values.push((of("key"), Some(file(key))));
    }
}

fn networks(written: &[String]) -> Option<String> {
    (!written.is_empty()).then(|| written.join(", "))
}

pub(super) fn values(http: &Http, service: &Balanced, values: &mut Vec<Value>) {
    certificates(&http.certificates, values);
    let retry = if http.retry.is_some() { "on" } else { "false" };
    let mut all = vec![
        ("head_timeout", Some(print_duration(http.head_timeout))),
        ("keep_alive", Some(print_duration(http.keep_alive))),
        ("answer_timeout", Some(print_duration(http.answer_timeout))),
        ("total_timeout", http.total_timeout.map(print_duration)),
        ("head_max", Some(print_bytes(http.head_bytes_max))),
        ("fields_max", Some(http.fields_max.to_string())),
        ("body_max", Some(print_bytes(http.body_bytes_max))),
        ("in_flight_max", http.in_flight_max.map(|max| max.to_string())),
        ("upstream_idle_max", Some(http.upstream_idle_max.to_string())),
        ("upstream_idle_timeout", Some(print_duration(http.upstream_idle_timeout))),
        ("trusted", networks(&http.trusted)),
        ("sticky", http.sticky.clone()),
        ("upstream_protocol", Some(http.upstream_protocol.word().to_owned())),
        ("http2", Some(http.http2.to_string())),
        ("retry", Some(retry.to_owned())),
    ];
    if let Some(retry) = http.retry {
        all.push(("retry.percent", Some(retry.percent.to_string())));
        all.push(("retry.per_second", Some(retry.floor_per_second.to_string())));
    }
    if service.ejects {
        all.push(("ejection.errors", Some(http.errors_count.to_string())));
    }
    values.extend(all.into_iter().map(|(key, value)| (key.to_owned(), value)));
    key::values("hash_key", http.hash_key.as_ref(), values);
}
