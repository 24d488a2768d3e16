//! What a running edgecore looks at, and what it tells of it: a line of the log for each check that fails, and one condition of the Node.
//! Pure but for [`of_machine`].

use std::time::SystemTime;

use config::edge::EdgeCore;

use crate::finding::{Finding, Grade};
use crate::host::Host;
use crate::{address, clock, machine, ports, resolver};

/// 1 KiB of a condition's message.
const MESSAGE_MAX: usize = 1024;
/// The reason of the condition while all is well.
const PASSED: &str = "ChecksPassed";
/// What the node has a condition of its own for, or says by its link, as soon as it is no more than a warning.
const TOLD_ELSEWHERE: [&str; 3] = ["Disk", "Inodes", "NodeAddress"];

/// What of this machine can stop a node or its pods, before it joins and as long as it runs: by files and the kernel's tables, which may be long
/// in coming. `machine_time`: what its clock says, right or wrong; `own`: as in [`ports::look`].
pub fn of_machine(
    host: &Host,
    settings: &EdgeCore,
    machine_time: SystemTime,
    own: Option<u32>,
) -> Vec<Finding> {
    let disks = machine::disks(host, &machine::folders(settings));
    vec![
        machine::memory_cgroup(&machine::Cgroups::of(host)),
        machine::disk(&disks, &machine::evicts_below(host, settings)),
        machine::inodes(&disks),
        machine::kernel_modules(host),
        machine::iptables(host),
        address::node_address(&settings.modules.edged.node_ip),
        ports::look(host, settings, own),
        clock::of_node(machine_time, host, &settings.modules.edge_hub.tls_cert_file),
        resolver::resolv_conf(host, settings),
    ]
}

/// What a running node tells of what was found, the gravest first.
#[must_use]
pub fn told(found: Vec<Finding>) -> Vec<Finding> {
    let (mut told, warned): (Vec<Finding>, Vec<Finding>) = found
        .into_iter()
        .filter(|finding| finding.grade != Grade::Passed)
        .partition(|finding| finding.grade == Grade::Failed);
    told.extend(warned.into_iter().filter(|finding| !TOLD_ELSEWHERE.contains(&finding.check)));
    told
}

/// The words of before for what is found again, as long as they differ in numbers alone: how much of a disk is left is no news each time.
#[must_use]
pub fn steady(before: &[Finding], now: Vec<Finding>) -> Vec<Finding> {
    let without_numbers = |says: &str| says.replace(|letter: char| letter.is_ascii_digit(), "");
    let is_same = |old: &Finding, new: &Finding| {
        (old.check, old.grade) == (new.check, new.grade)
            && without_numbers(&old.says) == without_numbers(&new.says)
    };
    let again = |new: Finding| before.iter().find(|old| is_same(old, &new)).cloned().unwrap_or(new);
    now.into_iter().map(again).collect()
}

/// What fails now and did not, or fails for another reason: each is a line of the log.
pub fn newly_failing<'a>(before: &[Finding], now: &'a [Finding]) -> Vec<&'a Finding> {
    now.iter().filter(|finding| !before.contains(finding)).collect()
}

/// The checks that failed and do so no more.
pub fn passing_again(before: &[Finding], now: &[Finding]) -> Vec<&'static str> {
    let names = before.iter().map(|finding| finding.check);
    names.filter(|check| !now.iter().any(|finding| finding.check == *check)).collect()
}

/// What a Node's condition says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// No check fails.
    pub is_well: bool,
    /// The name of the gravest check that fails.
    pub reason: &'static str,
    /// What was found with its cure, at most 1 KiB; of what has no room the names.
    pub message: String,
}

/// Of what fails, the gravest first.
pub fn summary(failing: &[Finding]) -> Summary {
    let Some((first, others)) = failing.split_first() else {
        return Summary {
            is_well: true,
            reason: PASSED,
            message: "no check of this machine fails".to_owned(),
        };
    };
    let mut message = cut(format!("{}: {}", first.check, first.says), MESSAGE_MAX);
    for (at, other) in others.iter().enumerate() {
        let words = format!("; {}: {}", other.check, other.says);
        // Room for the names of those behind it.
        let rest = names(&others[at + 1..]);
        if message.len() + words.len() + rest.len() <= MESSAGE_MAX {
            message.push_str(&words);
            continue;
        }
        let names = names(&others[at..]);
        message = cut(message, MESSAGE_MAX.saturating_sub(names.len()));
        message.push_str(&names);
        break;
    }
    Summary { is_well: false, reason: first.check, message: cut(message, MESSAGE_MAX) }
}

fn names(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    format!("; and {} (`keadm debug check` says more)", names.join(", "))
}

/// The first `most` bytes, whole letters alone.
fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(check: &'static str, says: &str) -> Finding {
        Finding::failed(check, says)
    }

    #[test]
    fn what_has_a_condition_of_its_own_is_told_when_it_is_grave() {
        let found = vec![
            Finding::passed("Ports", "free"),
            Finding::warned("ResolvConf", "r"),
            Finding::warned("Disk", "below evictionHard"),
            Finding::warned("NodeAddress", "no way out"),
            failed("MemoryCgroup", "m"),
        ];
        let names = |found: &[Finding]| found.iter().map(|finding| finding.check).collect::<Vec<_>>();
        assert_eq!(names(&told(found)), ["MemoryCgroup", "ResolvConf"]);
        assert_eq!(names(&told(vec![failed("Disk", "takes no writes")])), ["Disk"]);
    }

    #[test]
    fn a_number_that_changes_is_no_news_and_another_reason_is() {
        let before = vec![failed("Disk", "/a: 500.0 MiB are left"), failed("Clock", "behind")];
        let now = steady(&before, vec![failed("Disk", "/a: 499.9 MiB are left")]);
        assert_eq!(now, before[..1]);
        assert!(newly_failing(&before, &now).is_empty());
        assert_eq!(passing_again(&before, &now), ["Clock"]);
        let now = steady(&before, vec![failed("Disk", "/a takes no writes"), before[1].clone()]);
        assert_eq!(newly_failing(&before, &now), [&now[0]]);
        assert!(passing_again(&before, &now).is_empty());
        let warned = vec![Finding::warned("Clock", "behind")];
        assert_eq!(steady(&before, warned.clone()), warned, "as grave as it is now");
    }

    #[test]
    fn a_condition_names_the_gravest_check_with_its_cure_and_what_has_no_room_by_name() {
        let well = summary(&[]);
        assert!(well.is_well && well.reason == "ChecksPassed");
        let two = summary(&[failed("MemoryCgroup", "off: reboot"), failed("ResolvConf", "own: set it")]);
        assert_eq!((two.is_well, two.reason), (false, "MemoryCgroup"));
        assert_eq!(two.message, "MemoryCgroup: off: reboot; ResolvConf: own: set it");
        let long = "é".repeat(MESSAGE_MAX);
        let many =
            summary(&[failed("MemoryCgroup", &long), failed("ResolvConf", &long), failed("Iptables", "i")]);
        assert!(many.message.len() <= MESSAGE_MAX, "{}", many.message.len());
        assert!(
            many.message.starts_with("MemoryCgroup: é")
                && many.message.ends_with("; and ResolvConf, Iptables (`keadm debug check` says more)"),
            "{}",
            many.message
        );
        let short = summary(&[failed("A", "a"), failed("B", &long), failed("C", "c")]);
        assert!(short.message == "A: a; and B, C (`keadm debug check` says more)", "{}", short.message);
    }
}
