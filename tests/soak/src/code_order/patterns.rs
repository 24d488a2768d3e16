//! Few and short patterns that have all of some names and little else: many names under the beginning that they share, where what
//! else begins so weighs less than the patterns that would leave it out.

use std::collections::BTreeMap;

/// What stands under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Weight<'a> {
    /// Bytes that are wanted.
    pub(crate) wanted: u64,
    /// Bytes that are better left out.
    pub(crate) unwanted: u64,
    /// The hashes that tell what is wanted from the rest, where the name ends in one (its last letter is `*` then).
    pub(crate) hashes: Vec<&'a str>,
}

/// What a pattern costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price {
    /// In bytes that are taken in unwanted, for each letter.
    pub(crate) letter: u64,
    /// Letters that the script has around each.
    pub(crate) around: usize,
}

/// Patterns, each in the order of its names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Patterns {
    /// What has all that is wanted.
    pub(crate) wanted: Vec<String>,
    /// What has the same functions for other types, where hashes tell them apart: with another compiler it has what is wanted.
    pub(crate) kin: Vec<String>,
}

/// Patterns for all names with something wanted, which are of ASCII. A `*` in a name is one in its pattern.
pub(crate) fn patterns(names: &BTreeMap<&str, Weight<'_>>, price: Price) -> Patterns {
    let names: Vec<(&str, &Weight<'_>)> = names.iter().map(|(name, weight)| (*name, weight)).collect();
    let mut found = Patterns::default();
    cheapest(&names, 0, price, &mut found);
    found
}

/// Digits of a hash that stand in a pattern: of a few hundred that begin alike hardly two have the same.
const DIGITS: usize = 4;

/// What patterns for these names cost, which begin with the same letters, so many, as no others do. Adds them.
fn cheapest(names: &[(&str, &Weight<'_>)], letters: usize, price: Price, found: &mut Patterns) -> u64 {
    let (Some((first, weight)), Some((last, _))) = (names.first(), names.last()) else { return 0 };
    if names.iter().all(|(_, weight)| weight.wanted == 0) {
        return 0;
    }
    let length = first.bytes().zip(last.bytes()).take_while(|(one, other)| one == other).count();
    let begin = &first[..letters];
    if names.len() == 1 {
        let whole = if begin == *first { begin.to_owned() } else { format!("{begin}*") };
        return alone(whole, begin, weight, price, found);
    }
    let whole = format!("{begin}*");
    let unwanted: u64 = names.iter().map(|(_, weight)| weight.unwanted).sum();
    let together = unwanted + price.of(&whole);
    let before = (found.wanted.len(), found.kin.len());
    let (mut apart, mut rest) = (0, names);
    while let Some((name, weight)) = rest.first() {
        let letter = name.as_bytes().get(length);
        let (these, others) =
            rest.split_at(rest.partition_point(|(name, _)| name.as_bytes().get(length) <= letter));
        rest = others;
        if letter.is_some() {
            apart += cheapest(these, length + 1, price, found);
        } else if weight.wanted > 0 {
            // The beginning of others is a name itself.
            apart += alone((*name).to_owned(), name, weight, price, found);
        }
        if apart >= together {
            found.wanted.truncate(before.0);
            found.kin.truncate(before.1);
            found.wanted.push(whole);
            return together;
        }
    }
    apart
}

/// What one name costs under `whole`, a pattern that has it and no other, or under a pattern for each of its hashes.
fn alone(whole: String, begin: &str, weight: &Weight<'_>, price: Price, found: &mut Patterns) -> u64 {
    let together = weight.unwanted + price.of(&whole);
    let hash = |hash: &&str| Some(format!("{begin}*17h{}*", hash.get(..DIGITS)?));
    let hashes: Option<Vec<String>> = weight.hashes.iter().map(hash).collect();
    if let Some(hashes) = hashes.filter(|hashes| !hashes.is_empty()) {
        let apart = hashes.iter().map(|pattern| price.of(pattern)).sum::<u64>() + price.of(&whole);
        if apart < together {
            found.wanted.extend(hashes);
            found.kin.push(whole);
            return apart;
        }
    }
    found.wanted.push(whole);
    together
}

impl Price {
    fn of(self, pattern: &str) -> u64 {
        self.letter * (pattern.len() + self.around) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[(&'static str, u64, u64)], letter: u64) -> Vec<String> {
        let weight = |wanted, unwanted| Weight { wanted, unwanted, hashes: Vec::new() };
        let names = names.iter().map(|(name, wanted, unwanted)| (*name, weight(*wanted, *unwanted)));
        let found = patterns(&names.collect(), Price { letter, around: 2 });
        assert_eq!(found.kin, [""; 0]);
        found.wanted
    }

    #[test]
    fn names_are_gathered_where_little_else_is() {
        let names = [
            ("app::one", 10, 0),
            ("app::three", 0, 50),
            ("app::two", 10, 0),
            ("other", 0, 900),
            ("own", 9, 0),
        ];
        // Each letter weighs a byte: what is not wanted is left out.
        assert_eq!(of(&names, 1), ["app::o*", "app::tw*", "ow*"]);
        // Patterns are dear: fifty bytes more are cheaper than a second one.
        assert_eq!(of(&names, 10), ["a*", "ow*"]);
        assert_eq!(of(&names, 1_000), ["*"]);
        assert_eq!(of(&[("app", 0, 4)], 1), [""; 0]);
    }

    #[test]
    fn a_function_for_many_types_is_told_from_its_kin_by_hashes_where_that_gains() {
        let of = |unwanted| {
            let hashes = vec!["0123456789abcdef", "fedcba9876543210"];
            let names = [
                ("_ZN3map3get17h*", Weight { wanted: 9, unwanted, hashes }),
                ("_ZN4other17h*", Weight { unwanted: 500, ..Weight::default() }),
            ];
            let Patterns { wanted, kin } = patterns(&names.into(), Price { letter: 1, around: 2 });
            (wanted.join(" "), kin.join(" "))
        };
        assert_eq!(of(20), ("_ZN3*".to_owned(), String::new()));
        assert_eq!(of(60), ("_ZN3*17h0123* _ZN3*17hfedc*".to_owned(), "_ZN3*".to_owned()));
    }

    #[test]
    fn a_name_that_others_begin_with_stands_alone() {
        assert_eq!(of(&[("run", 5, 0), ("running", 0, 900)], 1), ["run"]);
        assert_eq!(of(&[("run", 0, 900), ("running", 5, 0)], 1), ["runn*"]);
        assert_eq!(of(&[("r", 5, 3), ("s", 0, 900)], 1), ["r"]);
    }

    #[test]
    fn every_wanted_name_is_matched_and_no_pattern_is_for_nothing() {
        let names = ["a", "ab", "abc", "abd", "b17h*", "bcd", "bce", "c"];
        for wanted in 0..1_u32 << names.len() {
            let list: Vec<(&str, u64, u64)> = names
                .iter()
                .enumerate()
                .map(|(at, name)| if wanted >> at & 1 == 1 { (*name, 7, 0) } else { (*name, 0, 5) })
                .collect();
            for letter in [0, 1, 3] {
                let found = of(&list, letter);
                let matches = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
                    Some(begin) => name.starts_with(begin),
                    None => name == pattern,
                };
                for (name, weight, _) in &list {
                    let matched = found.iter().any(|pattern| matches(pattern, name));
                    assert!(matched || *weight == 0, "{name} by {found:?}");
                }
                for pattern in &found {
                    assert!(
                        list.iter().any(|(name, weight, _)| *weight > 0 && matches(pattern, name)),
                        "{pattern}"
                    );
                }
            }
        }
    }
}
