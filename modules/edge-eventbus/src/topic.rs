//! Topic names and filters: what is taken, how they match, and the form in which the router sees them.

/// 1 KiB: KubeEdge's longest topic stays below 600 bytes.
pub(crate) const MAX_BYTES: usize = 1024;

/// 32 levels: more than any tree of topics that somebody thought out has. What it costs to find out who takes a topic
/// grows with its levels.
pub(crate) const MAX_LEVELS: usize = 32;

/// Trees that belong to a broker itself, so no client publishes into them.
const BROKERS_OWN: [&str; 3] = ["$SYS", "$share", "$queue"];

/// Why a topic name is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicDefect {
    /// Forbidden by the specification: the connection ends.
    Protocol(&'static str),
    /// Allowed there, not taken here: the message is dropped and counted.
    Policy(&'static str),
}

impl TopicDefect {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            TopicDefect::Protocol(reason) | TopicDefect::Policy(reason) => reason,
        }
    }
}

/// What is wrong with a topic name that a client publishes on.
pub(crate) fn name_defect(topic: &str) -> Option<TopicDefect> {
    name_fault(topic)
        .or_else(|| is_brokers_own(topic).then_some(TopicDefect::Policy("topic belongs to the broker")))
}

/// The same for the node itself, which has the trees of the broker, too.
pub(crate) fn name_fault(topic: &str) -> Option<TopicDefect> {
    if topic.is_empty() {
        return Some(TopicDefect::Protocol("topic name is empty"));
    }
    if topic.contains(['+', '#', '\0']) {
        return Some(TopicDefect::Protocol("topic name contains a wildcard or NUL"));
    }
    if topic.len() > MAX_BYTES {
        return Some(TopicDefect::Policy("topic name is longer than 1024 bytes"));
    }
    if topic.split('/').count() > MAX_LEVELS {
        return Some(TopicDefect::Policy("topic name has more than 32 levels"));
    }
    None
}

/// Whether a topic is in a tree of a broker itself. mosquitto's bridges say there how they are, also by a will.
pub(crate) fn is_brokers_own(topic: &str) -> bool {
    BROKERS_OWN.contains(&topic.split('/').next().unwrap_or_default())
}

/// The topic of a device that a client of KubeEdge before namespaces means, which left the namespace out.
pub(crate) fn with_namespace(topic: &str) -> Option<String> {
    let rest = topic.strip_prefix("$hw/events/device/")?;
    let (device, what) = rest.split_once('/')?;
    let (about, verb) = what.split_once('/')?;
    let is_meant = !device.is_empty() && matches!(about, "twin" | "state" | "method") && !verb.contains('/');
    is_meant.then(|| format!("$hw/events/device/default/{device}/{what}"))
}

/// What is wrong with a filter to subscribe to.
pub(crate) fn filter_defect(filter: &str) -> Option<TopicDefect> {
    if filter.is_empty() || filter.contains('\0') {
        return Some(TopicDefect::Protocol("topic filter is empty or contains NUL"));
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let alone = level.len() == 1;
        let last = levels.peek().is_none();
        if (level.contains('#') && !(alone && last)) || (level.contains('+') && !alone) {
            return Some(TopicDefect::Protocol("wildcard does not fill its level, or # is not the last"));
        }
    }
    if filter.len() > MAX_BYTES {
        return Some(TopicDefect::Policy("topic filter is longer than 1024 bytes"));
    }
    if filter.split('/').count() > MAX_LEVELS {
        return Some(TopicDefect::Policy("topic filter has more than 32 levels"));
    }
    let tree = filter.split('/').next().unwrap_or_default();
    if tree == "$share" || tree == "$queue" {
        return Some(TopicDefect::Policy("nothing is published in $share or $queue"));
    }
    None
}

/// Group and filter of a shared subscription (MQTT 5, section 4.8.2), or why it is none; `None` for what is not shared.
pub(crate) fn shared(filter: &str) -> Option<Result<(&str, &str), TopicDefect>> {
    let rest = filter.strip_prefix("$share/")?;
    let wrong = TopicDefect::Policy("shared subscription has no group or no filter");
    Some(match rest.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => {
            match filter_defect(filter) {
                // As with any other: a wrong line among others does not end the connection.
                Some(defect) => Err(TopicDefect::Policy(defect.reason())),
                None => Ok((group, filter)),
            }
        }
        _ => Err(wrong),
    })
}

/// The form of a name or filter in the router: `$x` is `s/x` and `x` is `u/x`.
///
/// rumqttd refuses filters that begin with `$`, and dies of a name whose first character takes more than one byte. The
/// two trees also keep `#` and `+` in the first level away from `$` topics, as the specification wants it.
pub(crate) fn router_form(topic: &str) -> String {
    match topic.strip_prefix('$') {
        Some(rest) => format!("s/{rest}"),
        None => format!("u/{topic}"),
    }
}

/// The topic of a name in the form of [`router_form`], also of the beginning of one.
pub(crate) fn from_router_form(router_form: &str) -> Option<String> {
    match router_form.split_once('/').unwrap_or((router_form, "")) {
        ("s", rest) => Some(format!("${rest}")),
        ("u", rest) => Some(rest.to_owned()),
        _ => None,
    }
}

/// Whether a valid filter takes a valid name, both in the form of [`router_form`].
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// Whether some name is taken by both of two valid filters in the form of [`router_form`].
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == "+" || b == "+" || a == b => {}
            _ => return false,
        }
    }
}

/// Whether every name that `inner` takes is taken by `outer`, too, both valid filters in the form of [`router_form`].
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('/'), inner.split('/'));
    loop {
        match (outer.next(), inner.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || (a == "+" && b != "#") => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes(filter: &str, topic: &str) -> bool {
        matches(&router_form(filter), &router_form(topic))
    }

    #[test]
    fn a_topic_without_a_namespace_is_told_with_it() {
        let meant = with_namespace("$hw/events/device/lamp-1/twin/get");
        assert_eq!(meant.as_deref(), Some("$hw/events/device/default/lamp-1/twin/get"));
        assert!(with_namespace("$hw/events/device/lamp-1/state/update").is_some());
        for other in [
            "$hw/events/device/d/lamp-1/twin/get",
            "$hw/events/device/d/lamp-1/twin/get/result",
            "lamp/twin/get",
            "$hw/events/device//twin/get",
            "$hw/events/device/lamp-1/twin",
            "$hw/events/device/d/lamp-1/other",
        ] {
            assert_eq!(with_namespace(other), None, "{other}");
        }
    }

    #[test]
    fn wildcards_match_as_the_specification_says() {
        assert!(takes("sport/tennis/player1/#", "sport/tennis/player1"));
        assert!(takes("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"));
        assert!(takes("#", "a") && takes("#", "/") && takes("+/+", "/finance") && takes("/+", "/finance"));
        assert!(!takes("+", "/finance") && !takes("sport/+", "sport") && takes("sport/+", "sport/"));
        assert!(
            !takes("#", "$hw/x")
                && !takes("+/x", "$hw/x")
                && takes("$hw/+", "$hw/x")
                && takes("$hw/#", "$hw")
        );
        assert!(!takes("hw/x", "$hw/x") && !takes("s/hw", "$hw") && !takes("Ä", "ä") && takes("ä/+", "ä/ö"));
    }

    #[test]
    fn what_is_no_name_or_filter_is_told_apart_from_what_is_not_wanted() {
        for name in ["", "a/+", "#", "a\0"] {
            assert!(matches!(name_defect(name), Some(TopicDefect::Protocol(_))), "{name}");
        }
        for name in ["$SYS/x", "$share/g/x", &"x".repeat(1025), &"/".repeat(32)] {
            assert!(matches!(name_defect(name), Some(TopicDefect::Policy(_))), "{name}");
        }
        for name in ["$hw/events/device/a/b/twin/update", "$", "é", "/", "a//b", "$é", &"/".repeat(31)] {
            assert_eq!(name_defect(name), None, "{name}");
        }
        for filter in ["", "a+", "#/a", "a/b#", "$#", "a/++"] {
            assert!(matches!(filter_defect(filter), Some(TopicDefect::Protocol(_))), "{filter}");
        }
        for filter in ["$share/g/a", &format!("{}#", "+/".repeat(32)), &format!("{}1", "+/".repeat(505))] {
            assert!(matches!(filter_defect(filter), Some(TopicDefect::Policy(_))), "{filter}");
        }
        assert_eq!(filter_defect(&format!("{}#", "+/".repeat(31))), None);
        assert_eq!(filter_defect("$hw/events/+/+/#"), None);
    }

    fn levels(wild: bool) -> impl Strategy<Value = String> {
        let level = if wild { "[abé+]|[abé]{0,2}" } else { "[abé]{0,2}" };
        (proptest::bool::ANY, proptest::collection::vec(level, 1..5), proptest::bool::ANY).prop_map(
            move |(dollar, mut levels, rest)| {
                if wild && rest {
                    levels.push("#".to_owned());
                }
                let dollar = if dollar && !levels[0].contains(['+', '#']) { "$" } else { "" };
                format!("{dollar}{}", levels.join("/"))
            },
        )
    }

    proptest! {
        // The broker counts on the router giving back exactly what our own matching expects.
        #[test]
        fn the_router_matches_as_we_do(filter in levels(true), topic in levels(false)) {
            prop_assume!(!topic.is_empty() && !filter.is_empty());
            prop_assert_eq!(filter_defect(&filter), None);
            let (filter, topic) = (router_form(&filter), router_form(&topic));
            prop_assert_eq!(matches(&filter, &topic), rumqttd::protocol::matches(&topic, &filter));
        }

        #[test]
        fn filters_that_share_a_name_overlap_and_a_covering_one_takes_all(
            one in levels(true), other in levels(true), topic in levels(false),
        ) {
            prop_assume!(!topic.is_empty() && !one.is_empty() && !other.is_empty());
            let (one, other, topic) = (router_form(&one), router_form(&other), router_form(&topic));
            if matches(&one, &topic) && matches(&other, &topic) {
                prop_assert!(overlap(&one, &other) && overlap(&other, &one));
            }
            if covers(&one, &other) {
                prop_assert!(overlap(&one, &other) && (!matches(&other, &topic) || matches(&one, &topic)));
            }
            prop_assert!(covers(&one, &one) && matches(&one, &topic) == covers(&one, &topic));
        }

        #[test]
        fn no_text_is_too_strange_to_be_judged(one in "(\\PC|[/+#$\0]){0,20}", other in "(\\PC|[/+#$\0]){0,20}") {
            let (name, filter) = (name_defect(&one), filter_defect(&other));
            prop_assert_eq!(name.is_none(), !one.is_empty() && !one.contains(['+', '#', '\0'])
                && !BROKERS_OWN.iter().any(|own| one == *own || one.starts_with(&format!("{own}/"))));
            prop_assert!(filter.is_none() || other.is_empty() || other.contains(['+', '#', '\0', '$']));
            if name.is_none() && filter.is_none() {
                let (topic, filter) = (router_form(&one), router_form(&other));
                prop_assert_eq!(matches(&filter, &topic), rumqttd::protocol::matches(&topic, &filter));
                prop_assert!(matches(&topic, &topic));
            }
        }
    }
}
