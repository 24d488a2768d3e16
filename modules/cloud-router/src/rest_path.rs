//! Paths of rules from rest, and what stands behind them in a call. Pure.

/// `a/{b}`: levels that are as they are, and levels that are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestPath {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Name(String),
    Any,
}

/// 32 levels of a path.
const LEVELS_MAX: usize = 32;

fn is_level(level: &str) -> bool {
    level.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'{' | b'}'))
}

impl RestPath {
    /// Without slashes at either end, as KubeEdge takes it. `None`: it is empty, or no path.
    pub fn parse(text: &str) -> Option<RestPath> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let level = |level: &str| {
            if let Some(name) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                return (!name.is_empty() && is_level(name)).then_some(Level::Any);
            }
            (!level.is_empty() && is_level(level)).then(|| Level::Name(level.to_owned()))
        };
        let levels: Option<Vec<Level>> = text.split('/').map(level).collect();
        levels.filter(|levels| levels.len() <= LEVELS_MAX).map(|levels| RestPath { levels })
    }

    /// What is behind the path in a call, without the slash between; `None` where the call is of another path. Behind a path with
    /// `{names}` is all of it, as with KubeEdge: so the names' values reach the target.
    pub fn rest_of<'a>(&self, called: &'a str) -> Option<&'a str> {
        let mut rest = called;
        for level in &self.levels {
            let (first, behind) = rest.split_once('/').unwrap_or((rest, ""));
            let is_it = match level {
                Level::Name(name) => first == name,
                Level::Any => !first.is_empty(),
            };
            if !is_it {
                return None;
            }
            rest = behind;
        }
        Some(if self.levels.contains(&Level::Any) { called } else { rest })
    }

    /// How closely it says what it takes: of two that take a call the greater one has it.
    pub fn closeness(&self) -> (usize, usize) {
        let names = self.levels.iter().filter(|level| **level != Level::Any).count();
        (self.levels.len(), names)
    }
}

/// The parts of a call's path, `/<node>/<namespace>/<rest>`, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalledPath<'a> {
    /// The node.
    pub node: &'a str,
    /// The namespace of the rule.
    pub namespace: &'a str,
    /// What is behind them.
    pub rest: &'a str,
}

impl<'a> CalledPath<'a> {
    /// Reads a path. `None`: it has not three parts, or one that leads upwards, however it is written.
    pub fn parse(path: &'a str) -> Option<CalledPath<'a>> {
        let mut parts = path.strip_prefix('/')?.splitn(3, '/');
        let (node, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let is_upward =
            |level: &str| matches!(level.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        let is_hidden = |level: &str| {
            let level = level.to_ascii_lowercase();
            level.contains("%2f") || level.contains("%5c") || level.contains('\\')
        };
        let is_bad = rest.split('/').any(|level| is_upward(level) || is_hidden(level));
        (!node.is_empty() && !namespace.is_empty() && !rest.is_empty() && !is_bad).then_some(CalledPath {
            node,
            namespace,
            rest,
        })
    }
}

/// A path or a topic, and what stands behind it.
pub fn join(base: &str, rest: &str) -> String {
    if rest.is_empty() {
        base.to_owned()
    } else {
        format!("{}/{}", base.trim_end_matches('/'), rest.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest_of<'a>(path: &str, called: &'a str) -> Option<&'a str> {
        RestPath::parse(path).unwrap().rest_of(called)
    }

    #[test]
    fn what_is_behind_the_path_goes_on_to_the_target() {
        assert_eq!(rest_of("/a", "a"), Some(""));
        assert_eq!(rest_of("a/", "a/"), Some(""));
        assert_eq!(rest_of("/a", "a/b/c"), Some("b/c"));
        assert_eq!(rest_of("/a/b", "a/b/c"), Some("c"));
        // As with KubeEdge, where values are: all of it.
        assert_eq!(rest_of("/a/{x}", "a/5"), Some("a/5"));
        for (path, called) in [("/a", "ab"), ("/a", "b"), ("/a/b", "a"), ("/a/{x}", "a/"), ("/a/{x}", "a")] {
            assert_eq!(rest_of(path, called), None, "{path} {called}");
        }
        for none in ["", "/", "a//b", "a/{", "a/{}", "a?b", "a b", "a/{b}c"] {
            assert_eq!(RestPath::parse(none), None, "{none}");
        }
        let closeness = |path: &str| RestPath::parse(path).unwrap().closeness();
        assert!(closeness("a/b") > closeness("a/{b}") && closeness("a/{b}") > closeness("a"));
        assert_eq!(
            (join("t", ""), join("t/", "/a"), join("/a", "b")),
            ("t".into(), "t/a".into(), "/a/b".into())
        );
    }

    #[test]
    fn a_call_that_leads_upwards_is_none() {
        let called = CalledPath::parse("/n/d/a/b");
        assert_eq!(called, Some(CalledPath { node: "n", namespace: "d", rest: "a/b" }));
        for none in [
            "",
            "/",
            "/n",
            "/n/d",
            "/n/d/",
            "//d/a",
            "/n//a",
            "n/d/a",
            "/n/d/../a",
            "/n/d/a/..",
            "/n/d/%2e%2E/a",
            "/n/d/.%2e",
            "/n/d/a%2fb",
            "/n/d/a%5cb",
            "/n/d/a\\b",
            "/n/d/./a",
        ] {
            assert_eq!(CalledPath::parse(none), None, "{none}");
        }
    }
}
