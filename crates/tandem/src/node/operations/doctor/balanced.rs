//! Talks about what is wrong or soon will be with the doors of a node that spread their work.
//! In: `BalancedStatus`. Out: `Finding`s.
//! Not here: what is warned of (`operations/balanced.rs`).
//! Tested by: `tests/balanced.rs`.

use super::super::balanced::{CERTIFICATE_DAYS, days_left};
use crate::api::balanced::BalancedStatus;
use crate::api::explain::{Finding, Severity};
use tandem_core::ids::NodeId;

/// A certificate that ends sooner is bad.
const URGENT_DAYS: i64 = 3;

/// What is said of one service on this node.
pub(in crate::node::operations) fn findings(
    of: &BalancedStatus,
    me: &NodeId,
    now_unix_ms: u64,
) -> Vec<Finding> {
    let subject = format!("{} on {me}", of.name);
    let mut findings = Vec::new();
    let of_certificates = |warning: &&String| warning.starts_with("certificate ");
    for warning in of.warnings.iter().filter(|it| !of_certificates(it)) {
        let is_bad = warning.starts_with("no endpoint takes");
        let severity = if is_bad { Severity::Bad } else { Severity::Warning };
        findings.push(Finding::new(severity, subject.clone(), warning.clone()).advice(
            "each node goes by its own checks and clients",
            "tandem status has the reason for each endpoint",
        ));
    }
    for certificate in &of.certificates {
        let left = days_left(certificate, now_unix_ms);
        if left >= CERTIFICATE_DAYS {
            let what = format!("{} is valid for {left} days", certificate.file);
            findings.push(Finding::good(subject.clone(), what));
            continue;
        }
        let severity = if left < URGENT_DAYS { Severity::Bad } else { Severity::Warning };
        let is_it = |warning: &&String| warning.contains(certificate.file.as_str());
        let what = of.warnings.iter().filter(of_certificates).find(is_it);
        let what = what.cloned().unwrap_or_else(|| format!("{} ends", certificate.file));
        findings.push(Finding::new(severity, subject.clone(), what).advice(
            "what renews it did not, or did not write it where the configuration says",
            "write the new one to the same file on this node: it is read within 10 s",
        ));
    }
    findings
}
