//! How much of what somebody wrote is shown to people.

/// 64 characters of it.
const SHOWN_MAX: usize = 64;

/// The beginning of a text that is quoted in a sentence: whoever writes a Device, or a device that answers, decides how long it is.
pub fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shown("DB1.DBW2"), "DB1.DBW2");
        assert_eq!(shown(&"ü".repeat(65)), "ü".repeat(64));
    }
}
