//! Which devices a container gets. Pure.
//!
//! As a kubelet chooses: first those that an init container of the pod has had, then those near to the NUMA nodes that the
//! pod was placed on, then those that the plugin prefers, then any. Among equal ones the first by name.

use std::collections::{BTreeMap, BTreeSet};

use contract::containermanager::PluginDevice;

use crate::plan::topology::NumaMask;

/// Names of devices.
pub(crate) type Ids = BTreeSet<String>;

/// What there is to choose from.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    pub(crate) resource: &'a str,
    /// All devices that the plugin has told of.
    pub(crate) devices: &'a BTreeMap<String, PluginDevice>,
    /// Those that somebody has.
    pub(crate) used: &'a Ids,
    /// Those that an init container of the pod has had, and that nobody who stays has.
    pub(crate) reusable: &'a Ids,
    /// The NUMA nodes that the container is placed on; `None`: anywhere.
    pub(crate) affinity: Option<NumaMask>,
    /// Whether the plugin has a say.
    pub(crate) asks_plugin: bool,
}

/// What comes of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// These.
    Take(Ids),
    /// The plugin is to say which of `available` it prefers, with `must_include` among them, `size` in all.
    AskPlugin { available: Ids, must_include: Ids, size: usize },
}

/// Chooses `wanted` devices. `preferred`: what the plugin has said, once it was asked.
///
/// # Errors
/// The kubelet's sentence.
pub(crate) fn choose(
    candidates: &Candidates<'_>,
    wanted: usize,
    preferred: Option<&Ids>,
) -> Result<Choice, String> {
    let resource = candidates.resource;
    let healthy: Ids =
        candidates.devices.iter().filter(|(_, device)| device.is_healthy).map(|(id, _)| id.clone()).collect();
    if healthy.is_empty() {
        return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
    }
    let mut taken = Ids::new();
    if take(&mut taken, wanted, candidates.reusable) {
        return Ok(Choice::Take(taken));
    }
    let available: Ids = healthy.difference(candidates.used).cloned().collect();
    let needed = wanted - taken.len();
    if available.len() < needed {
        let there = available.len();
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {there}"
        ));
    }
    let Sides { aligned, unaligned, without } = by_affinity(candidates, &available);
    let ask = |from: &Ids, taken: &Ids| Choice::AskPlugin {
        available: from.union(taken).cloned().collect(),
        must_include: taken.clone(),
        size: wanted,
    };
    if needed < aligned.len() {
        match preferred {
            None if candidates.asks_plugin => return Ok(ask(&aligned, &taken)),
            Some(preferred) => {
                take(&mut taken, wanted, &preferred.intersection(&aligned).cloned().collect());
            }
            None => {}
        }
        take(&mut taken, wanted, &aligned);
        return Ok(Choice::Take(taken));
    }
    if take(&mut taken, wanted, &aligned) {
        return Ok(Choice::Take(taken));
    }
    match preferred {
        None if candidates.asks_plugin => return Ok(ask(&available, &taken)),
        Some(preferred) => {
            take(&mut taken, wanted, &preferred.intersection(&available).cloned().collect());
        }
        None => {}
    }
    take(&mut taken, wanted, &unaligned);
    take(&mut taken, wanted, &without);
    Ok(Choice::Take(taken))
}

/// Takes of `from` until there are `wanted`. True when there are.
fn take(taken: &mut Ids, wanted: usize, from: &Ids) -> bool {
    for id in from {
        if taken.len() >= wanted {
            break;
        }
        taken.insert(id.clone());
    }
    taken.len() >= wanted
}

/// The devices that are free, by where they are.
struct Sides {
    aligned: Ids,
    unaligned: Ids,
    /// Near to no NUMA node, or nobody asks.
    without: Ids,
}

fn by_affinity(candidates: &Candidates<'_>, available: &Ids) -> Sides {
    let mut sides = Sides { aligned: Ids::new(), unaligned: Ids::new(), without: Ids::new() };
    let has_topology = candidates.devices.values().any(|device| !device.nodes.is_empty());
    let affinity = candidates.affinity.filter(|_| has_topology);
    for id in available {
        let nodes = candidates.devices.get(id).map(|device| &device.nodes);
        let side = match (affinity, nodes) {
            (Some(mask), Some(nodes)) if mask.has_any(nodes) => &mut sides.aligned,
            (Some(_), Some(nodes)) if !nodes.is_empty() => &mut sides.unaligned,
            _ => &mut sides.without,
        };
        side.insert(id.clone());
    }
    sides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Ids {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn device(text: &str) -> (String, PluginDevice) {
        let mut parts = text.split(':');
        let name = parts.next().unwrap();
        let nodes = parts.next().map(|nodes| nodes.split(',').map(|node| node.parse().unwrap()).collect());
        let is_healthy = !name.ends_with('!');
        let device = PluginDevice { is_healthy, nodes: nodes.unwrap_or_default() };
        (name.trim_end_matches('!').to_owned(), device)
    }

    struct Case {
        devices: &'static str,
        used: &'static str,
        reusable: &'static str,
        affinity: Option<&'static [u32]>,
        asks: bool,
        wanted: usize,
        preferred: Option<&'static str>,
    }

    const PLAIN: Case = Case {
        devices: "a b c d",
        used: "",
        reusable: "",
        affinity: None,
        asks: false,
        wanted: 2,
        preferred: None,
    };

    fn chosen(case: &Case) -> Result<Choice, String> {
        let devices = case.devices.split_whitespace().map(device).collect();
        let candidates = Candidates {
            resource: "example.com/x",
            devices: &devices,
            used: &ids(case.used),
            reusable: &ids(case.reusable),
            affinity: case.affinity.map(|nodes| nodes.iter().copied().collect()),
            asks_plugin: case.asks,
        };
        choose(&candidates, case.wanted, case.preferred.map(ids).as_ref())
    }

    fn take(text: &str) -> Result<Choice, String> {
        Ok(Choice::Take(ids(text)))
    }

    #[test]
    fn what_is_healthy_and_free_is_taken() {
        assert_eq!(chosen(&PLAIN), take("a b"));
        assert_eq!(chosen(&Case { used: "a c", ..PLAIN }), take("b d"));
        assert_eq!(chosen(&Case { devices: "a! b c", ..PLAIN }), take("b c"));
        assert_eq!(
            chosen(&Case { used: "a b c", ..PLAIN }).unwrap_err(),
            "requested number of devices unavailable for example.com/x. Requested: 2, Available: 1"
        );
        assert_eq!(
            chosen(&Case { devices: "a! b!", ..PLAIN }).unwrap_err(),
            "no healthy devices present; cannot allocate unhealthy devices example.com/x"
        );
    }

    #[test]
    fn what_an_init_container_has_had_comes_first() {
        assert_eq!(chosen(&Case { used: "b d", reusable: "b d", ..PLAIN }), take("b d"));
        assert_eq!(chosen(&Case { used: "d", reusable: "d", ..PLAIN }), take("a d"));
        assert_eq!(chosen(&Case { used: "b c d", reusable: "b c d", ..PLAIN }), take("b c"));
        assert_eq!(
            chosen(&Case { used: "a b c d", reusable: "d", ..PLAIN }).unwrap_err(),
            "requested number of devices unavailable for example.com/x. Requested: 1, Available: 0"
        );
    }

    #[test]
    fn the_plugin_prefers_among_those_that_are_near() {
        let asked = |available: &str, must: &str| {
            Ok(Choice::AskPlugin { available: ids(available), must_include: ids(must), size: 2 })
        };
        assert_eq!(chosen(&Case { asks: true, ..PLAIN }), asked("a b c d", ""));
        assert_eq!(chosen(&Case { asks: true, preferred: Some("c d"), ..PLAIN }), take("c d"));
        assert_eq!(chosen(&Case { asks: true, preferred: Some("d"), ..PLAIN }), take("a d"));
        // What it has no right to is passed over.
        assert_eq!(chosen(&Case { asks: true, used: "c", preferred: Some("c z"), ..PLAIN }), take("a b"));
        let near = Case { devices: "a:0 b:0 c:1 d:1 e:1 f", affinity: Some(&[1]), ..PLAIN };
        assert_eq!(chosen(&near), take("c d"));
        assert_eq!(chosen(&Case { asks: true, ..near }), asked("c d e", ""));
        let near = Case { devices: "a:0 b:0 c:1 d:1 e:1 f", affinity: Some(&[1]), ..PLAIN };
        assert_eq!(chosen(&Case { asks: true, preferred: Some("a e"), ..near }), take("c e"));
        // Too few are near: all of them, then those that the plugin prefers, then those of other nodes, then the rest.
        let few = || Case { devices: "a:0 b:0 c:1 f", affinity: Some(&[1]), ..PLAIN };
        assert_eq!(chosen(&few()), take("a c"));
        assert_eq!(chosen(&Case { asks: true, ..few() }), asked("a b c f", "c"));
        assert_eq!(chosen(&Case { asks: true, preferred: Some("c f"), ..few() }), take("c f"));
        assert_eq!(chosen(&Case { wanted: 4, ..few() }), take("a b c f"));
    }
}
