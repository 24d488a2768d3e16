//! Who may read and write which topics: what KubeEdge's clients need, or mosquitto's acl_file. Pure.

use std::collections::BTreeMap;

use crate::access::FileDefect;
use crate::{identity, plan, topic};

/// 16,384 lines that give or take a right: more than a node's users and devices need. A publish is held against those
/// of its client alone.
const RULES: usize = 16_384;

/// What a line gives or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right {
    Read,
    Write,
    ReadWrite,
    Deny,
}

impl Right {
    fn reads(self) -> bool {
        matches!(self, Right::Read | Right::ReadWrite)
    }

    fn writes(self) -> bool {
        matches!(self, Right::Write | Right::ReadWrite)
    }
}

/// A right on a filter. In a file's pattern the filter is as it was written, with %c and %u; everywhere else it is in the
/// router's form (see [`topic::router_form`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    right: Right,
    filter: String,
}

/// What clients may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acl {
    /// Without a file: what KubeEdge's devices and applications do.
    KubeEdge,
    /// What a file says, and nothing else.
    File(AclRules),
}

/// A file's lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct AclRules {
    /// Of anonymous clients: those before the first user.
    anonymous: Vec<Rule>,
    users: BTreeMap<String, Vec<Rule>>,
    /// Of everyone.
    patterns: Vec<Rule>,
}

impl Acl {
    /// Nobody may do anything: what holds while a file has never been understood.
    pub(crate) fn closed() -> Self {
        Acl::File(AclRules::default())
    }

    /// Reads a file.
    pub(crate) fn parse(text: &str) -> Result<Self, FileDefect> {
        let mut lines = AclRules::default();
        let mut user: Option<String> = None;
        let mut rules = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            rules += 1;
            if rules > RULES {
                return Err(FileDefect::new(number, format!("more than {RULES} lines are not taken")));
            }
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match word {
                "user" => {
                    let name = rest.trim();
                    if let Some(identity::InvalidName(what)) = identity::user_defect(name) {
                        return Err(FileDefect::new(number, what));
                    }
                    user = Some(name.to_owned());
                }
                "topic" => {
                    let (right, filter) = right(rest).map_err(|what| FileDefect::new(number, what))?;
                    check(right, filter).map_err(|what| FileDefect::new(number, what))?;
                    let rule = Rule { right, filter: topic::router_form(filter) };
                    match &user {
                        Some(user) => lines.users.entry(user.clone()).or_default().push(rule),
                        None => lines.anonymous.push(rule),
                    }
                }
                "pattern" => {
                    let (right, filter) = right(rest).map_err(|what| FileDefect::new(number, what))?;
                    let shape = filter.replace("%c", "x").replace("%u", "x");
                    check(right, &shape).map_err(|what| FileDefect::new(number, what))?;
                    lines.patterns.push(Rule { right, filter: filter.to_owned() });
                }
                _ => {
                    let what = format!("`{}` is none of user, topic and pattern", shown(word));
                    return Err(FileDefect::new(number, what));
                }
            }
        }
        Ok(Acl::File(lines))
    }

    /// What the client of that name may do.
    pub(crate) fn rights(&self, name: &str) -> Rights {
        let Acl::File(AclRules { anonymous, users, patterns }) = self else { return Rights::KubeEdge };
        let (user, client_id) = identity::parts(name);
        let own = match user {
            Some(user) => users.get(user).map(Vec::as_slice).unwrap_or_default(),
            None => anonymous,
        };
        let by_pattern = patterns.iter().filter_map(|pattern| expanded(pattern, user, client_id));
        Rights::Rules(own.iter().cloned().chain(by_pattern).collect())
    }
}

/// As mosquitto reads it: a filter with a space in it needs the word before it, so that one that is misspelt is no part of a filter.
fn right(rest: &str) -> Result<(Right, &str), String> {
    let rest = rest.trim();
    let Some((word, filter)) = rest.split_once(char::is_whitespace) else {
        return Ok((Right::ReadWrite, rest));
    };
    let right = match word {
        "read" => Right::Read,
        "write" => Right::Write,
        "readwrite" => Right::ReadWrite,
        "deny" => Right::Deny,
        _ => return Err(format!("`{}` is none of read, write, readwrite and deny", shown(word))),
    };
    Ok((right, filter.trim()))
}

fn shown(word: &str) -> String {
    word.chars().take(32).flat_map(char::escape_debug).collect()
}

fn check(right: Right, filter: &str) -> Result<(), &'static str> {
    if let Some(topic::TopicDefect::Protocol(what) | topic::TopicDefect::Policy(what)) =
        topic::filter_defect(filter)
    {
        return Err(what);
    }
    // A line without any effect is a mistake that should not look like a right.
    if right == Right::Write && !plan::may_overlap_clients(&topic::router_form(filter)) {
        return Err("no client may write there, whatever its rights: only edgecore or the broker does");
    }
    Ok(())
}

/// A pattern for one client; `None` if it is not about it.
fn expanded(pattern: &Rule, user: Option<&str>, client_id: &str) -> Option<Rule> {
    let Rule { right, filter } = pattern;
    if filter.contains("%u") && user.is_none() {
        return None;
    }
    let mut levels = Vec::new();
    for level in filter.split('/') {
        // An id that is no level's text gets nothing by it, and is denied all that it could mean.
        if level.contains("%c") && client_id.contains(['/', '+', '#']) {
            if *right != Right::Deny {
                return None;
            }
            levels.push("#".to_owned());
            break;
        }
        levels.push(filled(level, user.unwrap_or_default(), client_id));
    }
    Some(Rule { right: *right, filter: topic::router_form(&levels.join("/")) })
}

/// In one go, so that a name with a %c in it stays a name.
fn filled(level: &str, user: &str, client_id: &str) -> String {
    let mut out = String::new();
    let mut rest = level;
    while let Some(at) = rest.find('%') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("%c") {
            out.push_str(client_id);
            rest = after;
        } else if let Some(after) = from.strip_prefix("%u") {
            out.push_str(user);
            rest = after;
        } else {
            out.push('%');
            rest = from.strip_prefix('%').unwrap_or_default();
        }
    }
    out + rest
}

/// What one client may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// See [`Acl::KubeEdge`].
    KubeEdge,
    /// See [`Acl::File`].
    Rules(Vec<Rule>),
}

impl Rights {
    /// Whether it may publish on a topic, given in the router's form. What only `edgecore` says nobody may.
    pub(crate) fn may_write(&self, router_form: &str) -> bool {
        match self {
            Rights::KubeEdge => plan::is_clients(router_form),
            Rights::Rules(rules) => {
                plan::may_be_clients(router_form)
                    && allowed(rules, Right::writes, |filter| topic::matches(filter, router_form))
            }
        }
    }

    /// Whether it may receive a message on a topic, given in the router's form.
    pub(crate) fn may_read(&self, router_form: &str) -> bool {
        match self {
            Rights::KubeEdge => true,
            Rights::Rules(rules) => {
                allowed(rules, Right::reads, |filter| topic::matches(filter, router_form))
            }
        }
    }

    /// Whether a subscription to a filter, given in the router's form, can ever bring it a message.
    pub(crate) fn may_subscribe(&self, router_form: &str) -> bool {
        match self {
            Rights::KubeEdge => true,
            Rights::Rules(rules) => {
                let denied =
                    |rule: &Rule| rule.right == Right::Deny && topic::covers(&rule.filter, router_form);
                let given = |rule: &Rule| rule.right.reads() && topic::overlap(&rule.filter, router_form);
                !rules.iter().any(denied) && rules.iter().any(given)
            }
        }
    }
}

/// What is denied is denied, wherever it stands.
fn allowed(rules: &[Rule], wanted: impl Fn(Right) -> bool, takes: impl Fn(&str) -> bool) -> bool {
    let mut given = false;
    for rule in rules {
        if rule.right == Right::Deny && takes(&rule.filter) {
            return false;
        }
        given = given || (wanted(rule.right) && takes(&rule.filter));
    }
    given
}

#[cfg(test)]
mod tests;
