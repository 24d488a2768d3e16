//! `$(NAME)` in commands, arguments, variables and sub-paths. Pure.
//!
//! Variables that name others twice grow without bound, and a pod's author writes them: what a process is given has the size that
//! Linux lets it have, and is refused before it is made.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::error::StepError;

/// 128 KiB: a string that `execve` takes, with the zero behind it (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = (128 << 10) - 1;
/// 6 MiB: the arguments and variables of a process, whatever its limits are (three quarters of `_STK_LIM`).
const ALL_MAX: usize = 6 << 20;

/// No process could be given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("argument list too long: a process takes variables and arguments of 128 KiB each and 6 MiB in all")]
pub(crate) struct TooLong;

impl From<TooLong> for StepError {
    fn from(error: TooLong) -> Self {
        StepError::Config(error.to_string())
    }
}

/// What a process may still be given.
#[derive(Debug)]
pub(crate) struct ArgumentSpace {
    left: usize,
}

impl ArgumentSpace {
    /// Of a process that has nothing yet.
    pub(crate) fn new() -> Self {
        ArgumentSpace { left: ALL_MAX }
    }

    /// Takes the place of a string of so many bytes.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), TooLong> {
        // Its zero and the pointer to it count, too.
        let needed =
            bytes.checked_add(1 + size_of::<usize>()).filter(|_| bytes <= STRING_MAX).ok_or(TooLong)?;
        self.left = self.left.checked_sub(needed).ok_or(TooLong)?;
        Ok(())
    }

    /// Expands a string that the process gets.
    ///
    /// # Errors
    /// There is no place for what it becomes.
    pub(crate) fn expand<'v>(
        &mut self,
        text: &str,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<String, TooLong> {
        let expanded = expand(text, value)?;
        self.take(expanded.len())?;
        Ok(expanded)
    }
}

/// Replaces `$(NAME)` by what is known; `$$` is a dollar; what is unknown stays as it is.
///
/// # Errors
/// It becomes longer than a string may be.
pub(crate) fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> Result<String, TooLong> {
    let mut out = String::new();
    let mut push = |part: &str| {
        if out.len() + part.len() > STRING_MAX {
            return Err(TooLong);
        }
        out.push_str(part);
        Ok(())
    };
    for part in parts(text) {
        match part {
            Part::Text(text) => push(text)?,
            Part::Variable { whole, name } => push(value(name).unwrap_or(whole))?,
        }
    }
    Ok(out)
}

/// The names in `$(NAME)` that are not known.
pub(crate) fn unknown_names<'a>(text: &'a str, known: &BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let name = |part| match part {
        Part::Variable { name, .. } => Some(name),
        Part::Text(_) => None,
    };
    parts(text).filter_map(name).filter(|name| !known.contains_key(*name)).collect()
}

enum Part<'a> {
    Text(&'a str),
    Variable { whole: &'a str, name: &'a str },
}

fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    // What opens behind the last `)` never closes, and is not searched for one each time.
    let behind_last = text.rfind(')').map_or(usize::MAX, |at| text.len() - at);
    std::iter::from_fn(move || {
        let (part, after) = first_part(rest, rest.len() >= behind_last)?;
        rest = after;
        Some(part)
    })
}

/// The first part of a text, and what is behind it; `None` when nothing is left.
fn first_part(text: &str, closes: bool) -> Option<(Part<'_>, &str)> {
    let Some(behind) = text.strip_prefix('$') else {
        let (plain, rest) = text.split_at(text.find('$').unwrap_or(text.len()));
        return (!plain.is_empty()).then_some((Part::Text(plain), rest));
    };
    if let Some(after) = behind.strip_prefix('$') {
        return Some((Part::Text("$"), after));
    }
    let opened = behind.strip_prefix('(').filter(|_| closes);
    let Some((name, after)) = opened.and_then(|inner| inner.split_once(')')) else {
        return Some((Part::Text("$"), behind));
    };
    let whole = text.strip_suffix(after).unwrap_or(text);
    Some((Part::Variable { whole, name }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_rules_of_kubernetes() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, want) in [
            ("$(A)", "1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(A)$(A$(", "1$(A$("),
            ("$($(A)", "$($(A)"),
            ("", ""),
        ] {
            let value = |name: &str| known.get(name).map(String::as_str);
            assert_eq!(expand(text, value).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(unknown_names("$(A)$(C)$$(D)$(B)$(C)", &known), BTreeSet::from(["B", "C"]));
    }

    /// Each variable names the one before it twice.
    #[test]
    fn what_a_process_is_given_grows_to_its_bound_and_no_further() {
        let known = BTreeMap::from([("A".to_owned(), "x".repeat(STRING_MAX / 2))]);
        let value = |name: &str| known.get(name).map(String::as_str);
        assert_eq!(expand("$(A)$(A)", value).map(|text| text.len()), Ok(STRING_MAX - 1));
        assert_eq!(expand("$(A)$(A)aa", value), Err(TooLong));
        let mut space = ArgumentSpace::new();
        let taken = (0..1000).take_while(|_| space.expand("$(A)$(A)", value).is_ok()).count();
        assert_eq!(taken, ALL_MAX / (STRING_MAX + 8));
        let mut space = ArgumentSpace::new();
        let empty = (0..ALL_MAX).take_while(|_| space.take(0).is_ok()).count();
        assert_eq!(empty, ALL_MAX / 9, "strings of no length take place, too");
        assert_eq!(ArgumentSpace::new().take(usize::MAX), Err(TooLong));
    }
}
