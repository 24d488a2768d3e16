//! The path and the query of a call.

use percent_encoding::percent_decode_str;

/// A request's target in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Between the slashes, decoded but for the first: that one says what is asked, and those who let it through read it as it was sent.
    pub(crate) segments: Vec<String>,
    /// The path as it was sent.
    pub(crate) path: String,
    pub(crate) query: Query,
}

impl Target {
    /// Takes a target apart. Nothing of it fails: what is no UTF-8 becomes a name that nothing has.
    pub(crate) fn parse(target: &str) -> Target {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let mut sent = path.strip_prefix('/').unwrap_or(path).split('/');
        let first = sent.next().map(str::to_owned);
        let segments = first.into_iter().chain(sent.map(decoded)).collect();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let query = Query(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect());
        Target { segments, path: path.to_owned(), query }
    }
}

/// The parameters in their order; one may come several times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// The first value of a parameter.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A switch of exec and attach: only `1` is on.
    pub(crate) fn is_one(&self, name: &str) -> bool {
        self.first(name) == Some("1")
    }

    /// A switch of the API's options: on with anything but `0` and `false`, the empty value too.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_decoded_in_its_parts() {
        let target = Target::parse("/exec/d/p%2Fq/c?command=a+b&command=%2Fbin%2Fsh&input=1&tty=true&odd");
        assert_eq!(target.segments, ["exec", "d", "p/q", "c"]);
        assert_eq!(target.query.all("command").collect::<Vec<_>>(), ["a b", "/bin/sh"]);
        assert!(target.query.is_one("input") && !target.query.is_one("tty"));
        assert!(target.query.is_set("tty") && target.query.is_set("odd") && !target.query.is_set("follow"));
        for off in ["0", "false", "FALSE"] {
            assert!(!Target::parse(&format!("/x?follow={off}")).query.is_set("follow"), "{off}");
        }
        assert_eq!(Target::parse("/logs/").segments, ["logs", ""]);
        assert_eq!(Target::parse("/%65xec/%64").segments, ["%65xec", "d"]);
    }
}
