//! Words of others, as they are shown. Pure.

/// Longer words are cut.
const WORDS_MAX: usize = 400;

/// One line of at most [`WORDS_MAX`] letters, without what a terminal would obey.
pub(crate) fn short(text: &str) -> String {
    text.replace('\n', " ").chars().filter(|letter| !letter.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_one_line_and_bounded() {
        assert_eq!(short("a\nb\u{1b}[2J"), "a b[2J");
        assert_eq!(short(&"é".repeat(WORDS_MAX + 1)).chars().count(), WORDS_MAX);
    }
}
