//! How an upgrade went, for a person.

use crate::journal::{Event, Journal};
use crate::plan::Outcome;

/// A line each: what was asked for, each step, and how it ended.
pub fn lines(journal: &Journal, is_supervised: bool) -> Vec<String> {
    let (from, to) = (&journal.from_version, &journal.to_version);
    let to = if to.is_empty() { "an unknown version" } else { to };
    let mut lines = vec![match journal.event {
        Event::Upgrade => format!("upgrade of edgecore from {from} to {to}"),
        Event::Rollback => format!("rollback of edgecore from {from} to {to}"),
        Event::ConfigUpdate => format!("other values in edgecore.yaml of edgecore {from}"),
    }];
    for step in &journal.steps {
        let sign = if step.succ { "ok    " } else { "failed" };
        lines.push(format!("{sign}  {:?}: {}", step.phase, step.reason));
    }
    let progress = &journal.progress;
    let cause = progress.cause.as_deref().unwrap_or("no cause is known");
    let is_of_settings = journal.event == Event::ConfigUpdate;
    lines.push(match (progress.is_done(), progress.outcome) {
        (true, Some(Outcome::Confirmed)) if is_of_settings => match &progress.cause {
            None => "confirmed: edgecore runs with the new values".to_owned(),
            Some(left) => format!("confirmed: edgecore runs with the new values; not done beside it: {left}"),
        },
        (true, Some(Outcome::RolledBack)) if is_of_settings => {
            format!("rolled back: edgecore.yaml is as it was. {cause}")
        }
        (true, Some(Outcome::Refused)) if is_of_settings => format!("refused: edgecore.yaml stays. {cause}"),
        (true, Some(Outcome::Confirmed)) => match &progress.cause {
            None => format!("confirmed: edgecore {to} runs"),
            Some(left) => format!("confirmed: edgecore {to} runs; not done beside it: {left}"),
        },
        (true, Some(Outcome::RolledBack)) => format!("rolled back: edgecore {from} is there again. {cause}"),
        (true, Some(Outcome::Refused)) => format!("refused: edgecore {from} stays. {cause}"),
        (true, _) => format!("failed, look at this machine: {cause}"),
        (false, _) if is_supervised => format!("under way: {:?}", progress.phase),
        (false, _) => format!(
            "unfinished: it was ended in the phase {:?}. The next start of edgecore by its unit finishes it, or `keadm upgrade edge --take-up`",
            progress.phase
        ),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_last_line_says_which_version_runs_and_why() {
        let mut journal = Journal::new(Event::Upgrade, "0.1.0", "0.2.0", Path::new("/c"), Path::new("/s"));
        let last = |journal: &Journal, supervised| lines(journal, supervised).pop().unwrap();
        assert!(last(&journal, true).contains("under way: PreCheck"));
        assert!(last(&journal, false).contains("--take-up"));
        journal.note(1, &Err("no room".to_owned()));
        journal.progress.failed("no room");
        assert!(lines(&journal, false).contains(&"failed  PreCheck: no room".to_owned()));
        assert_eq!(last(&journal, false), "refused: edgecore 0.1.0 stays. PreCheck: no room");
        for (outcome, words) in [
            (Outcome::Confirmed, "confirmed: edgecore 0.2.0 runs"),
            (Outcome::RolledBack, "rolled back: edgecore 0.1.0 is there again"),
            (Outcome::Failed, "look at this machine"),
        ] {
            journal.progress.outcome = Some(outcome);
            assert!(last(&journal, false).contains(words), "{outcome:?}");
        }
        journal.event = Event::ConfigUpdate;
        for (outcome, words) in [
            (Outcome::Confirmed, "edgecore runs with the new values; not done beside it: PreCheck: no room"),
            (Outcome::RolledBack, "edgecore.yaml is as it was. PreCheck: no room"),
            (Outcome::Refused, "edgecore.yaml stays"),
        ] {
            journal.progress.outcome = Some(outcome);
            assert!(last(&journal, false).contains(words), "{outcome:?}");
        }
    }
}
