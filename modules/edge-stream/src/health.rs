//! `/healthz`, in the form of Kubernetes' health endpoints, and how the checks came out so far (`/metrics/slis`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::answer::Reply;
use crate::error::Refusal;
use crate::stats::exposition::Exposition;

/// A check: its name, and whether all is well.
pub(crate) type Check = (&'static str, bool);

/// How checks came out each time that they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<BTreeMap<&'static str, Outcomes>>);

/// Of one check.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    was_well: bool,
    well: u64,
    ill: u64,
}

impl Record {
    /// Notes the checks that were asked for.
    pub(crate) fn note(&self, checks: &[Check], only: Option<&str>, excluded: &[String]) {
        let only = only.filter(|only| !only.is_empty());
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, is_well) in checks {
            if only.is_some_and(|only| only != *name) || excluded.iter().any(|excluded| excluded == name) {
                continue;
            }
            let outcomes = record.entry(name).or_default();
            outcomes.was_well = *is_well;
            let count = if *is_well { &mut outcomes.well } else { &mut outcomes.ill };
            *count = count.saturating_add(1);
        }
    }

    /// `/metrics/slis`. `started`: seconds since 1970 when the process began.
    pub(crate) fn page(&self, started: f64) -> String {
        let record = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut page = Exposition::default();
        for (name, outcomes) in record {
            let labels = [("name", name), ("type", "healthz")];
            let help = "This metric records the result of a single healthcheck.";
            let was_well = f64::from(u8::from(outcomes.was_well));
            page.gauge("kubernetes_healthcheck", help).add(&labels, was_well, None);
            let help = "This metric records the results of all healthcheck.";
            for (status, count) in [("error", outcomes.ill), ("success", outcomes.well)] {
                if count > 0 {
                    let labels = [("name", name), ("status", status), ("type", "healthz")];
                    page.counter("kubernetes_healthchecks_total", help).add(&labels, count as f64, None);
                }
            }
        }
        let help = "Start time of the process since unix epoch in seconds.";
        page.gauge("process_start_time_seconds", help).add(&[], started, None);
        page.text()
    }
}

/// The answer to `/healthz` or, with a check, `/healthz/CHECK`.
pub(crate) fn answer(
    checks: &[Check],
    only: Option<&str>,
    verbose: bool,
    excluded: &[String],
) -> Result<Reply, Refusal> {
    if let Some(only) = only.filter(|only| !only.is_empty()) {
        return match checks.iter().find(|(name, _)| *name == only) {
            Some((_, true)) => Ok(Reply::text("ok")),
            Some((name, false)) => {
                Err(Refusal::failed(format!("internal server error: {name} failed: reason withheld\n")))
            }
            None => Err(Refusal::missing("404 page not found\n")),
        };
    }
    let mut list = String::new();
    let mut is_well = true;
    for (name, ok) in checks {
        if excluded.iter().any(|excluded| excluded == name) {
            list.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if *ok {
            list.push_str(&format!("[+]{name} ok\n"));
        } else {
            is_well = false;
            list.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    match (is_well, verbose) {
        (false, _) => Err(Refusal::failed(format!("{list}healthz check failed\n"))),
        (true, true) => Ok(Reply::text(format!("{list}healthz check passed\n"))),
        (true, false) => Ok(Reply::text("ok")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Body;

    fn text(reply: Reply) -> String {
        let Body::Whole(bytes) = reply.body else { panic!("no text") };
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn checks_are_listed_and_one_that_fails_is_named() {
        let well = [("ping", true), ("syncloop", true)];
        assert_eq!(text(answer(&well, None, false, &[]).unwrap()), "ok");
        let listed = "[+]ping ok\n[+]syncloop ok\nhealthz check passed\n";
        assert_eq!(text(answer(&well, None, true, &[]).unwrap()), listed);
        let ill = [("ping", true), ("syncloop", false)];
        let refusal = answer(&ill, None, false, &[]).unwrap_err();
        assert_eq!(refusal.status, 500);
        assert_eq!(refusal.text, "[+]ping ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n");
        assert!(answer(&ill, None, false, &["syncloop".to_owned()]).is_ok());
        assert_eq!(text(answer(&ill, Some("ping"), false, &[]).unwrap()), "ok");
        assert_eq!(answer(&ill, Some("syncloop"), false, &[]).unwrap_err().status, 500);
        assert_eq!(answer(&ill, Some("x"), false, &[]).unwrap_err().status, 404);
    }

    #[test]
    fn what_was_asked_for_is_recorded() {
        let record = Record::default();
        record.note(&[("ping", true), ("syncloop", true)], None, &[]);
        record.note(&[("ping", true), ("syncloop", false)], None, &["ping".to_owned()]);
        record.note(&[("ping", true), ("syncloop", false)], Some("syncloop"), &[]);
        let text = record.page(12.5);
        for line in [
            "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
            "kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 0",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 1",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"error\",type=\"healthz\"} 2",
            "kubernetes_healthchecks_total{name=\"syncloop\",status=\"success\",type=\"healthz\"} 1",
            "process_start_time_seconds 12.5",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in {text}");
        }
    }
}
