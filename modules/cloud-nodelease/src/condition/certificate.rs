//! Until when the node's certificate is good: the condition `kubehive.io/Certificate`.

use k8s_openapi::api::core::v1::NodeCondition;
use serde_json::Value;

use super::{Synced, whole_seconds, written};

/// The condition's type.
pub(super) const CERTIFICATE: &str = "kubehive.io/Certificate";
/// A certificate is renewed at 70 to 90 percent of its life: one of which so many percent are over was tried in vain.
const OVERDUE_PERCENT: u64 = 95;

/// What there is to say of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Valid,
    RenewalOverdue,
    Ended,
}

/// What the condition says: with another one it is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CertificateState {
    phase: Phase,
    /// In seconds since 1970.
    ends: u64,
}

impl CertificateState {
    /// Of a certificate that is good between these, in seconds since 1970.
    pub(crate) fn of((begins, ends): (u64, u64), now: jiff::Timestamp) -> Self {
        let now = u64::try_from(now.as_second()).unwrap_or_default();
        let overdue_at =
            begins.saturating_add(ends.saturating_sub(begins).saturating_mul(OVERDUE_PERCENT) / 100);
        let phase = if now >= ends {
            Phase::Ended
        } else if now >= overdue_at {
            Phase::RenewalOverdue
        } else {
            Phase::Valid
        };
        CertificateState { phase, ends }
    }
}

/// The condition, unless `before` says the same already, or the session has no certificate that ends. It is written anew with each
/// certificate.
pub(super) fn condition(synced: &Synced, before: Option<&NodeCondition>) -> Option<Value> {
    let CertificateState { phase, ends } = CertificateState::of(synced.certificate_valid?, synced.now);
    let ends_at = i64::try_from(ends).ok().and_then(|ends| jiff::Timestamp::from_second(ends).ok());
    let end = whole_seconds(ends_at.unwrap_or(jiff::Timestamp::MAX));
    let (status, reason, message) = match phase {
        Phase::Ended => (
            "False",
            "Ended",
            format!(
                "the node's certificate ended at {end}: its link stays, and the next one begins with a renewal"
            ),
        ),
        Phase::RenewalOverdue => (
            "False",
            "RenewalOverdue",
            format!(
                "the node's certificate ends at {end} and was not renewed: edgecore's log there says why (`journalctl -u edgecore`: edgehub_certificate_not_renewed)"
            ),
        ),
        Phase::Valid => ("True", "Valid", format!("the node's certificate ends at {end}")),
    };
    let same = before.is_some_and(|before| {
        before.status == status
            && before.reason.as_deref() == Some(reason)
            && before.message.as_deref() == Some(message.as_str())
    });
    (!same).then(|| written(CERTIFICATE, (status, reason, &message), before, synced.now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::synccontroller::{SyncState, SyncStatus};
    use serde_json::json;

    fn at(second: i64, certificate_valid: Option<(u64, u64)>) -> Synced {
        let status = SyncStatus {
            state: SyncState::InSync,
            waiting: 0,
            oldest: None,
            refusal: None,
            last_confirmed: None,
            linked: true,
        };
        let now = jiff::Timestamp::from_second(second).unwrap();
        Synced { status, link: None, certificate_valid, revoked: None, now }
    }

    #[test]
    fn an_operator_sees_the_end_and_a_renewal_that_did_not_come() {
        let valid = Some((1000, 2000));
        assert_eq!(condition(&at(1500, None), None), None, "it has no end");
        let good = condition(&at(1900, valid), None).unwrap();
        assert_eq!((&good["status"], &good["reason"]), (&json!("True"), &json!("Valid")));
        assert_eq!(good["message"], "the node's certificate ends at 1970-01-01T00:33:20Z");
        let before: NodeCondition = serde_json::from_value(good).unwrap();
        assert_eq!(condition(&at(1949, valid), Some(&before)), None, "once");
        let overdue = condition(&at(1950, valid), Some(&before)).unwrap();
        assert_eq!((&overdue["status"], &overdue["reason"]), (&json!("False"), &json!("RenewalOverdue")));
        assert_eq!(condition(&at(2000, valid), Some(&before)).unwrap()["reason"], "Ended");
        let minute = condition(&at(1030, Some((1000, 1060))), None).unwrap();
        assert_eq!(minute["reason"], "Valid", "a life of less than 100 seconds has hundredths as well");
        let renewed = condition(&at(1900, Some((1800, 2800))), Some(&before)).unwrap();
        assert_eq!(renewed["message"], "the node's certificate ends at 1970-01-01T00:46:40Z");
    }
}
