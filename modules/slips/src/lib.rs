//! Which known name somebody may have meant by one that is not known: of a setting, of a chart's value.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

/// How many slips make of a name of so many letters what is nearly it: `id` is not nearly `ip`.
const SLIPS: [(usize, usize); 3] = [(6, 2), (4, 1), (0, 0)];
/// 64 characters of a name are looked at: the work grows by the square.
const LOOKED_AT: usize = 64;

/// The name among `known` that is nearest to `written`, if it is so near that it was meant. Letters count in any case, and two that
/// changed places are one slip. Of names that are as near as each other the first.
pub fn meant<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let head = |name: &str| name.chars().take(LOOKED_AT).collect::<String>().to_ascii_lowercase();
    let written = head(written);
    let near = known.into_iter().filter_map(|name| {
        let lower = head(name);
        let (_, most) = SLIPS.into_iter().find(|(letters, _)| lower.chars().count() >= *letters)?;
        Some((strsim::osa_distance(&lower, &written), name)).filter(|(slips, _)| *slips <= most)
    });
    near.min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_meant_and_none_that_is_far() {
        let known = ["ip", "port", "slaveID", "timeoutMs", "nodeLimit"];
        for (written, wanted) in [
            ("slavId", Some("slaveID")),
            ("slaveIDs", Some("slaveID")),
            ("prot", Some("port")),
            ("timeuotMs", Some("timeoutMs")),
            ("nodelimit", Some("nodeLimit")),
            ("IP", Some("ip")),
            ("id", None),
            ("pots", None),
            ("unit", None),
            ("", None),
        ] {
            assert_eq!(meant(written, known), wanted, "{written}");
        }
        assert_eq!(meant("nodeLimt", ["nodeLime", "nodeLimit"]), Some("nodeLime"), "as near as the other");
        assert_eq!(meant(&"x".repeat(1 << 20), known), None);
    }
}
