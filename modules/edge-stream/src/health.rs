//! `/healthz`, in the form of Kubernetes' health endpoints.

use crate::answer::Reply;
use crate::error::Refusal;

/// A check: its name, and whether all is well.
pub(crate) type Check = (&'static str, bool);

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
}
