//! Tells every value of a service whose endpoints something else runs.
//! In: `Balanced`. Out: keys below its table, and values as they would be written.

use super::{http, listen, rate};
use crate::config::valid::{Balanced, Health, ProxyVersion, RoleCheck, Upstream, UpstreamTls};
use crate::config::value::print_duration;

type Value = (String, Option<String>);

pub(super) fn values(service: &Balanced) -> Vec<Value> {
    let addresses = service.upstreams.iter().map(|upstream| upstream.address.to_string());
    let addresses: Vec<String> = addresses.collect();
    let led = service.leads_to.as_ref().map(|of| format!("the copies of {of}"));
    let switch = |on: bool| if on { "on" } else { "false" }.to_owned();
    let mut values = vec![
        ("kind", Some(service.pairing.kind().to_string())),
        ("clustering", Some(service.pairing.clustering().to_string())),
        ("replication", Some(service.pairing.replication().to_string())),
        ("listen", Some(listen(service.listen))),
        ("upstreams", Some(led.unwrap_or_else(|| addresses.join(", ")))),
        ("balance", Some(service.policy.word().to_owned())),
        ("slow_start", Some(print_duration(service.limits.slow_start))),
        ("hold_max", Some(print_duration(service.hold_max))),
        ("sessions_max", Some(service.sessions_max.to_string())),
        ("held_max", Some(service.held_max.to_string())),
        ("connections_max", service.connections_max.map(|max| max.to_string())),
        ("connect_timeout", Some(print_duration(service.connect_timeout))),
        ("idle_timeout", Some(print_duration(service.idle_timeout))),
        ("drain_max", service.drain_max.map(print_duration)),
        ("accept_proxy", Some(service.accept_proxy.to_string())),
        ("accept_proxy_from", service.accept_proxy_from.as_ref().map(|it| it.join(", "))),
        ("send_proxy", service.send_proxy.map(ProxyVersion::word).map(str::to_owned)),
        ("health", Some(switch(service.health.is_some()))),
        ("ejection", Some(switch(service.ejects))),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    upstreams(&service.upstreams, &mut values);
    if let Some(of) = &service.leads_to {
        values.push(("upstreams.1.service".to_owned(), Some(of.to_string())));
    }
    limits(service, &mut values);
    tls(service, &mut values);
    if service.http.is_none() {
        http::certificates(&service.certificates, &mut values);
    }
    rate::values(service.rate_limit.as_ref(), service.http.is_some(), &mut values);
    if let Some(requests) = &service.http {
        // A connection to an endpoint carries the requests of many clients.
        values.retain(|(key, _)| key != "connections_max");
        http::values(requests, service, &mut values);
    }
    values
}

fn tls(service: &Balanced, values: &mut Vec<Value>) {
    let speaks = service.http.is_some() || service.encrypts;
    let key = if speaks { "upstream_tls" } else { "health.tls" };
    let is_on = service.upstream_tls.as_ref().map(|_| "on".to_owned());
    values.push(("upstream_tls".to_owned(), is_on.clone().filter(|_| speaks)));
    if service.http.is_none() && service.health.is_some() {
        values.push(("health.tls".to_owned(), is_on.filter(|_| !speaks)));
    }
    let Some(UpstreamTls { ca, server_name, certificate }) = &service.upstream_tls else { return };
    let file = |path: &std::path::Path| Some(path.display().to_string());
    let own = certificate.as_ref();
    values.push((format!("{key}.ca"), file(ca)));
    values.push((format!("{key}.server_name"), server_name.clone()));
    values.push((format!("{key}.certificate"), own.and_then(|it| file(&it.certificate))));
    values.push((format!("{key}.key"), own.and_then(|it| file(&it.key))));
}

fn upstreams(upstreams: &[Upstream], values: &mut Vec<Value>) {
    for (at, Upstream { address, weight, zone, drain }) in upstreams.iter().enumerate() {
        let key = |key: &str| format!("upstreams.{}.{key}", at + 1);
        values.push((key("address"), Some(address.to_string())));
        values.push((key("service"), None));
        values.push((key("weight"), Some(weight.to_string())));
        values.push((key("zone"), zone.clone()));
        values.push((key("drain"), Some(drain.to_string())));
    }
}

/// What is switched off has no values.
fn role(check: Option<&RoleCheck>, values: &mut Vec<Value>) {
    let path = |key: &str| format!("health.postgres{key}");
    values.push((path(""), check.map(|_| "on".to_owned())));
    let Some(RoleCheck { role, user, database, password_file }) = check else { return };
    let file = password_file.as_ref().map(|file| file.display().to_string());
    values.push((path(".role"), Some(role.word().to_owned())));
    values.push((path(".user"), Some(user.clone())));
    values.push((path(".database"), Some(database.clone())));
    values.push((path(".password_file"), file));
}

fn limits(service: &Balanced, values: &mut Vec<Value>) {
    let limits = &service.limits;
    let health = service.health.map(|Health { interval, timeout }| {
        [
            ("health.interval", print_duration(interval)),
            ("health.timeout", print_duration(timeout)),
            ("health.fall", limits.fall.to_string()),
            ("health.rise", limits.rise.to_string()),
        ]
    });
    let ejection = service.ejects.then(|| {
        [
            ("ejection.failures", limits.failures.to_string()),
            ("ejection.success_min", limits.success_percent_min.to_string()),
            ("ejection.window", print_duration(limits.window)),
            ("ejection.time", print_duration(limits.ejection)),
            ("ejection.time_max", print_duration(limits.ejection_max)),
            ("ejection.share_max", limits.ejected_percent_max.to_string()),
        ]
    });
    if service.ejects {
        let times = Some(limits.latency_times).filter(|times| *times > 0);
        values.push(("ejection.latency".to_owned(), times.map(|times| times.to_string())));
    }
    if service.health.is_some() {
        let question = service.question.as_ref();
        let (least, most) = question.map_or((200, 399), |it| it.expect);
        let path = question.map(|it| it.path.clone());
        values.push(("health.path".to_owned(), path));
        values.push(("health.host".to_owned(), question.and_then(|it| it.host.clone())));
        values.push(("health.expect".to_owned(), Some(format!("{least}-{most}"))));
    }
    if service.health.is_some() && service.http.is_none() {
        role(service.role.as_ref(), values);
    }
    let all = health.into_iter().flatten().chain(ejection.into_iter().flatten());
    values.extend(all.map(|(key, value)| (key.to_owned(), Some(value))));
}
