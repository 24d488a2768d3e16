//! Why a pod is held, and until when, in words. Pure.

use std::time::Duration;

use crate::images::pull_words::duration;
use crate::runs::plan::pause;

/// For the node's event, when a run that began with care has lived on with its pods.
pub(crate) const CARE_IS_OVER: &str =
    "EdgeCore has run on with all that it began, a few pods at a time: from now on pods begin as they come";

/// Why a pod is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It has ended EdgeCore so often.
    Culprit { ends: u32 },
    /// The runs before had begun it: its half begins so much later.
    Suspect { within: Duration },
    /// So many suspects come first, each half of which is watched for so long: it begins so much later.
    Suspects { many: usize, watch: Duration, within: Duration },
    /// The cloud was not heard, and is waited for so much longer.
    Cloud { within: Duration },
    /// Others of its group have begun a moment ago.
    Turn { within: Duration },
}

impl Why {
    /// For the pod's events. `ends`: how many runs in a row have ended.
    pub(crate) fn words(self, ends: u32) -> String {
        let ended = ended(ends);
        let why = match self {
            Why::Culprit { ends } => {
                let minutes = pause(ends).as_secs() / 60;
                format!(
                    "EdgeCore ended by itself each time soon after it had begun this pod (found {ends} times): it is tried again {minutes} minutes after EdgeCore's start. One that replaces it, and this one after a restart of EdgeCore by hand, begin at once"
                )
            }
            Why::Suspect { within } => format!(
                "the pod is one of those that were begun before EdgeCore ended by itself: half of them begin at a time, until it is known whether it was one. This one begins in {} at the latest",
                seconds(within)
            ),
            Why::Suspects { many, watch, within } => format!(
                "{ended}: {many} pods that were begun before it ended come first, half of them at a time, and each half is watched for {}. This one begins when they are done, in about {}",
                seconds(watch),
                seconds(within)
            ),
            Why::Cloud { within } => format!(
                "{ended}: pods begin when the cloud was heard, or in {} without it, a few at a time",
                seconds(within)
            ),
            Why::Turn { within } => {
                format!("{ended}: pods begin a few at a time, the next of them in {}", seconds(within))
            }
        };
        // Of a pod that was begun by a run before.
        format!("{why}. Containers of it that run go on")
    }
}

/// For the node's event, when the run begins. `suspects`: how many pods the runs before had begun, one of which may have ended them.
pub(crate) fn of_start(ends: u32, suspects: usize) -> String {
    let ended = ended(ends);
    let first = match suspects {
        0 => String::new(),
        many => format!(
            ". The {many} that were begun before it ended come first, half of them at a time, and are watched. Those that were never begun do not wait for that"
        ),
    };
    format!("{ended}: pods begin when the cloud was heard, or after 2 minutes, a few at a time{first}")
}

fn ended(ends: u32) -> String {
    format!("EdgeCore was ended {ends} times in a row soon after its start, and not by anybody's word")
}

/// In whole seconds, and never too few.
fn seconds(time: Duration) -> String {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    duration(Duration::from_secs(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_suspects_is_told_so_and_for_how_long() {
        let of = |seconds: u64| Duration::from_millis(seconds * 1000 - 1);
        let words = Why::Suspects { many: 3, watch: of(90), within: of(200) }.words(4);
        let wanted = "EdgeCore was ended 4 times in a row soon after its start, and not by anybody's word: 3 pods that were begun before it ended come first, half of them at a time, and each half is watched for 1m30s. This one begins when they are done, in about 3m20s. Containers of it that run go on";
        assert_eq!(words, wanted);
        assert!(!words.contains("cloud"));
        assert!(Why::Cloud { within: of(120) }.words(3).contains("or in 2m0s without it, a few at a time"));
        assert!(of_start(3, 0).ends_with("a few at a time"));
        assert!(of_start(3, 2).contains(". The 2 that were begun"));
    }
}
