//! Which images go, and when: the kubelet's image garbage collection. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use beehive::Moment;
use cri::v1::Image;

use crate::images::reference::Reference;

/// 5 min between two looks whether images are to go: a kubelet's.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How the images of sandboxes are called that a runtime does not name.
const PAUSE: &str = "pause";

/// When an image was first seen and last used, by the clock that nobody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first: Moment,
    used: Option<Moment>,
}

/// An image that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unused {
    pub(crate) id: String,
    pub(crate) size: u64,
    first: Moment,
    used: Option<Moment>,
}

/// What is in use, by whatever names it has.
#[derive(Debug, Default)]
pub(crate) struct InUse {
    /// By containers, whether they run or not, and by pods that are wanted here.
    pub(crate) names: BTreeSet<String>,
    /// The image of the sandboxes, as the runtime tells it.
    pub(crate) sandbox: Option<String>,
}

impl InUse {
    fn has(&self, image: &Image) -> bool {
        let names = || std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
        let repository = |name: &String| Reference::parse(name).map(|reference| reference.repository()).ok();
        let wanted = |name: &String| self.names.contains(name);
        let of_sandbox = |name: &String| {
            self.sandbox.as_ref() == Some(name)
                || repository(name).is_some_and(|path| path.rsplit('/').next() == Some(PAUSE))
        };
        image.pinned || names().any(wanted) || names().any(of_sandbox)
    }
}

/// The images that were seen.
#[derive(Debug, Default)]
pub(crate) struct ImageUses(BTreeMap<String, Seen>);

impl ImageUses {
    /// Notes which images there are now and which are used. Answers the others, those first that were unused for the longest
    /// time, and of these those that came first.
    pub(crate) fn unused(&mut self, images: &[Image], in_use: &InUse, now: Moment) -> Vec<Unused> {
        let here: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.0.retain(|id, _| here.contains(id.as_str()));
        let mut unused = Vec::new();
        for image in images {
            let seen = self.0.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
            if in_use.has(image) {
                seen.used = Some(now);
            } else {
                let Seen { first, used } = *seen;
                unused.push(Unused { id: image.id.clone(), size: image.size, first, used });
            }
        }
        unused.sort_by(|a, b| (a.used, a.first, &a.id).cmp(&(b.used, b.first, &b.id)));
        unused
    }
}

impl Unused {
    /// Whether it goes for its age: it was not used for longer than `max`. `began`: since when images are watched, for nothing
    /// is known of the time before.
    pub(crate) fn is_too_old(&self, max: Duration, began: Moment, now: Moment) -> bool {
        now.since(began) > max && self.used.is_none_or(|used| now.since(used) > max)
    }

    /// Whether it may go to make room: it has been here for a while, so that nobody is about to use it.
    pub(crate) fn may_go(&self, min: Duration, now: Moment) -> bool {
        now.since(self.first) >= min
    }
}

/// How full the images' disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
}

impl Fill {
    /// How much of it is used, in percent.
    pub(crate) fn used_percent(self) -> u64 {
        let available = u128::from(self.available.min(self.capacity));
        let left = (available * 100).checked_div(u128::from(self.capacity)).unwrap_or(0);
        100 - u64::try_from(left).unwrap_or(100).min(100)
    }

    /// How much has to go; `None`: nothing.
    pub(crate) fn excess(self, high_percent: u64, low_percent: u64) -> Option<u64> {
        if self.used_percent() < high_percent {
            return None;
        }
        let wanted = u128::from(self.capacity) * u128::from(100 - low_percent.min(100)) / 100;
        Some(u64::try_from(wanted).unwrap_or(u64::MAX).saturating_sub(self.available.min(self.capacity)))
    }

    /// What is said when images alone do not make enough room.
    pub(crate) fn insufficient(self, freed: u64) -> String {
        format!(
            "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space by \
             deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, \
             volumes, or other data.",
            self.used_percent(),
            size(self.capacity)
        )
    }
}

/// `1.5 GiB`
fn size(bytes: u64) -> String {
    let tenths = |unit: u64| {
        let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{} GiB", tenths(1 << 30)),
        bytes if bytes >= 1 << 20 => format!("{} MiB", tenths(1 << 20)),
        bytes if bytes >= 1 << 10 => format!("{} KiB", tenths(1 << 10)),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn image(id: &str, tag: &str) -> Image {
        Image { id: id.to_owned(), repo_tags: vec![tag.to_owned()], size: 10, ..Image::default() }
    }

    fn used(names: &[&str]) -> InUse {
        InUse {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            sandbox: Some("r.example/sandbox:1".into()),
        }
    }

    fn ids(unused: &[Unused]) -> Vec<&str> {
        unused.iter().map(|image| image.id.as_str()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let mut all = vec![
            image("a", "r.example/a:1"),
            image("b", "r.example/b:1"),
            image("c", "docker.io/library/c:latest"),
            image("s", "r.example/sandbox:1"),
            image("p", "registry.k8s.io/pause:3.9"),
        ];
        all.push(Image { pinned: true, ..image("pinned", "r.example/pinned:1") });
        let mut uses = ImageUses::default();
        // By id, by tag, and by the name that a pod has for it.
        assert_eq!(
            ids(&uses.unused(&all, &used(&["a", "r.example/b:1", "docker.io/library/c:latest"]), at(0))),
            [""; 0]
        );
        all.push(image("d", "r.example/d:1"));
        assert_eq!(ids(&uses.unused(&all, &used(&["b"]), at(10))), ["d", "a", "c"]);
        assert_eq!(ids(&uses.unused(&all, &used(&["a"]), at(20))), ["d", "c", "b"]);
        // What is gone is forgotten.
        all.retain(|image| image.id != "d");
        uses.unused(&all, &used(&[]), at(30));
        all.push(image("d", "r.example/d:1"));
        let unused = uses.unused(&all, &used(&[]), at(40));
        let d = unused.iter().find(|image| image.id == "d").unwrap();
        assert!(!d.may_go(Duration::from_secs(1), at(40)) && d.may_go(Duration::from_secs(1), at(41)));
    }

    #[test]
    fn age_counts_from_the_last_use_and_not_from_before_anybody_looked() {
        let mut uses = ImageUses::default();
        let all = [image("a", "r.example/a:1"), image("b", "r.example/b:1")];
        uses.unused(&all, &used(&["b"]), at(0));
        let old = |now: u64, uses: &mut ImageUses| -> Vec<String> {
            let unused = uses.unused(&all, &used(&[]), at(now));
            let old =
                unused.iter().filter(|image| image.is_too_old(Duration::from_secs(100), at(50), at(now)));
            old.map(|image| image.id.clone()).collect()
        };
        assert_eq!(old(150, &mut uses), [""; 0]);
        assert_eq!(old(151, &mut uses), ["a", "b"]);
        uses.unused(&all, &used(&["b"]), at(160));
        assert_eq!(old(200, &mut uses), ["a"]);
    }

    #[test]
    fn room_is_made_down_to_the_lower_bound() {
        let fill = |available: u64| Fill { capacity: 1000, available };
        assert_eq!(fill(151).used_percent(), 85);
        assert_eq!(fill(160).excess(85, 80), None);
        assert_eq!(fill(150).excess(85, 80), Some(50));
        assert_eq!(fill(0).excess(85, 80), Some(200));
        assert_eq!(fill(0).excess(100, 80), Some(200));
        assert_eq!(fill(2000).used_percent(), 0);
        assert_eq!(Fill { capacity: 0, available: 0 }.used_percent(), 100);
        let said = Fill { capacity: 3 << 29, available: 1 << 27 }.insufficient(7);
        assert!(said.contains("(92% of 1.5 GiB used)") && said.contains("(freed 7 bytes)"), "{said}");
    }
}
