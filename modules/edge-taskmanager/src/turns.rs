//! Whose step begins when: what takes moments, what is fetched for an upgrade and what is pulled for later have a place each, so that no
//! registry holds up an upgrade or other settings. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;

use crate::plan::Step;

/// 2 s before a pull is tried again, doubled at each time.
const PULL_AGAIN: Duration = Duration::from_secs(2);

/// Where one step at a time is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// What takes moments, and the exchange of edgecore or its settings.
    Machine,
    /// An installation package is fetched: there is one file for it.
    Package,
    /// An image is pulled.
    Image,
}

impl Place {
    /// All of them, in the order in which they are filled.
    pub(crate) const ALL: [Place; 3] = [Place::Machine, Place::Package, Place::Image];

    /// Where a step is done.
    pub(crate) fn of(step: &Step) -> Place {
        match step {
            Step::Pull(_) => Place::Image,
            Step::Fetch(_) => Place::Package,
            Step::Check(_) | Step::Examine(_) | Step::AwaitConfirmation | Step::Mark | Step::Exchange(..) => {
                Place::Machine
            }
        }
    }
}

fn is_exchange(step: &Step) -> bool {
    matches!(step, Step::Exchange(..))
}

/// Which of these steps, by the uids of their parts, begins at a free place: an exchange first, and nothing beside one that is not through; else
/// they take turns, after the part that had the place `last`. `rests`: what a part waits for is looked at later.
pub(crate) fn next(
    place: Place,
    steps: &BTreeMap<String, Step>,
    last: Option<&str>,
    rests: impl Fn(&str) -> bool,
) -> Option<String> {
    let exchanges = steps.values().any(is_exchange);
    let open = steps.iter().filter(|(uid, step)| {
        Place::of(step) == place && is_exchange(step) == exchanges && !rests(uid.as_str())
    });
    let turn = |uid: &str| (last.is_some_and(|last| uid <= last), uid.to_owned());
    open.map(|(uid, _)| uid).min_by_key(|uid| turn(uid.as_str())).cloned()
}

/// Which parts wait until others are through: those that are neither at work nor rest by themselves. What takes moments is waited for without a
/// word, and what somebody on the node is waited for is no turn.
pub(crate) fn waiting(
    steps: &BTreeMap<String, Step>,
    at_work: &BTreeSet<String>,
    rests: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let exchanges = steps.values().any(is_exchange);
    let waits = |(uid, step): &(&String, &Step)| {
        !at_work.contains(*uid)
            && !rests(uid.as_str())
            && !matches!(step, Step::AwaitConfirmation)
            && (exchanges || Place::of(step) != Place::Machine)
    };
    steps.iter().filter(waits).map(|(uid, _)| uid.clone()).collect()
}

/// How often pulls were tried, and how long they may still take.
#[derive(Debug, Default)]
pub(crate) struct PullTries(BTreeMap<String, Try>);

/// Of the image that a part is at.
#[derive(Debug)]
struct Try {
    image: String,
    tries: u32,
    /// What is left of the time that the action has. What others take meanwhile is not of it.
    left: Duration,
    pause: Duration,
    begun: Moment,
    again: Moment,
}

impl PullTries {
    /// How long the attempt may take that begins now; `timeout`: what all of this image have.
    pub(crate) fn begin(&mut self, uid: &str, image: &str, timeout: Duration, now: Moment) -> Duration {
        let fresh = || Try {
            image: image.to_owned(),
            tries: 0,
            left: timeout,
            pause: PULL_AGAIN,
            begun: now,
            again: now,
        };
        let held = self.0.entry(uid.to_owned()).or_insert_with(fresh);
        if held.image != image {
            *held = fresh();
        }
        held.begun = now;
        held.left
    }

    /// An attempt has failed: after which pause the next one begins; `None`: there is none any more.
    pub(crate) fn failed(
        &mut self,
        uid: &str,
        retries: u32,
        now: Moment,
        jitter: impl Fn(Duration) -> Duration,
    ) -> Option<Duration> {
        let held = self.0.get_mut(uid)?;
        held.left = held.left.saturating_sub(now.since(held.begun));
        if held.tries >= retries || held.pause >= held.left {
            return None;
        }
        let pause = jitter(held.pause);
        held.left = held.left.saturating_sub(pause);
        (held.tries, held.pause, held.again) = (held.tries + 1, held.pause * 2, now + pause);
        Some(pause)
    }

    /// Whether a part's next attempt is not yet.
    pub(crate) fn rests(&self, uid: &str, now: Moment) -> bool {
        self.0.get(uid).is_some_and(|held| now < held.again)
    }

    /// Whether any part's pull is under way, or is to be tried again.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The image was pulled, or given up, or its part is gone.
    pub(crate) fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Order;
    use beehive::Env;

    fn steps(steps: &[(&str, Step)]) -> BTreeMap<String, Step> {
        steps.iter().map(|(uid, step)| ((*uid).to_owned(), step.clone())).collect()
    }

    fn pull(image: &str) -> Step {
        Step::Pull(image.to_owned())
    }

    #[test]
    fn parts_take_turns_and_no_pull_holds_up_what_is_no_pull() {
        let all = steps(&[("a", pull("1")), ("b", pull("2")), ("c", Step::Mark), ("d", pull("3"))]);
        let image = |last: &str, rests: &str| next(Place::Image, &all, Some(last), |uid| uid == rests);
        assert_eq!(image("", "").as_deref(), Some("a"));
        assert_eq!(image("a", "").as_deref(), Some("b"));
        assert_eq!(image("a", "b").as_deref(), Some("d"), "whose pause is not over has no turn");
        assert_eq!(image("d", "").as_deref(), Some("a"));
        assert_eq!(next(Place::Machine, &all, None, |_| false).as_deref(), Some("c"));
        assert_eq!(next(Place::Package, &all, None, |_| false), None);
    }

    #[test]
    fn nothing_begins_beside_an_exchange() {
        let order = Order::Configure([("a".to_owned(), "1".to_owned())].into());
        let all = steps(&[
            ("a", pull("1")),
            ("b", Step::Examine(BTreeMap::new())),
            ("c", Step::Exchange(order, String::new())),
        ]);
        assert_eq!(next(Place::Machine, &all, Some("c"), |_| false).as_deref(), Some("c"));
        assert_eq!(next(Place::Image, &all, None, |_| false), None);
        assert_eq!(next(Place::Machine, &all, None, |uid| uid == "c"), None, "also while it is waited for");
    }

    #[test]
    fn what_others_hold_up_waits_and_what_rests_or_takes_moments_does_not() {
        let work = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect::<BTreeSet<String>>();
        let mut all = steps(&[("a", pull("1")), ("b", pull("2")), ("c", Step::Mark), ("d", pull("3"))]);
        all.insert("e".to_owned(), Step::AwaitConfirmation);
        assert_eq!(waiting(&all, &work(&["a"]), |uid| uid == "d"), work(&["b"]));
        assert_eq!(waiting(&all, &work(&["a", "b", "d"]), |_| false), work(&[]), "the mark takes moments");
        // While edgecore is exchanged nothing else begins, for as long as that takes.
        let order = Order::Configure([("a".to_owned(), "1".to_owned())].into());
        all.insert("f".to_owned(), Step::Exchange(order, String::new()));
        assert_eq!(waiting(&all, &work(&["a", "f"]), |_| false), work(&["b", "c", "d"]));
        assert_eq!(waiting(&all, &work(&["a"]), |uid| uid == "f"), work(&["b", "c", "d"]));
    }

    #[test]
    fn a_pull_is_tried_again_within_its_own_time() {
        let begin = Env::seeded(1).now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut tries = PullTries::default();
        let same = |pause| pause;
        assert_eq!(tries.begin("u", "a", Duration::from_secs(20), at(0)), Duration::from_secs(20));
        assert_eq!(tries.failed("u", 9, at(5), same), Some(Duration::from_secs(2)));
        assert!(tries.rests("u", at(6)) && !tries.rests("u", at(7)) && !tries.rests("v", at(6)));
        // Others had the place for an hour: that is not its time.
        assert_eq!(tries.begin("u", "a", Duration::from_secs(20), at(3600)), Duration::from_secs(13));
        assert_eq!(tries.failed("u", 9, at(3604), same), Some(Duration::from_secs(4)));
        assert_eq!(tries.begin("u", "a", Duration::from_secs(20), at(3608)), Duration::from_secs(5));
        assert_eq!(
            tries.failed("u", 9, at(3609), same),
            None,
            "the next pause is as long as all that is left"
        );
        // Another image has a time of its own, and as many tries as the job says.
        assert_eq!(tries.begin("u", "b", Duration::from_secs(20), at(4000)), Duration::from_secs(20));
        assert_eq!(tries.failed("u", 0, at(4000), same), None);
        tries.forget("u");
        assert!(tries.is_empty() && tries.failed("u", 9, at(4000), same).is_none());
    }
}
