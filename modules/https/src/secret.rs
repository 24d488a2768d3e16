//! Secrets that callers show.

/// Whether `shown` is the secret `own`; how long that takes says nothing about how much of it is right.
pub fn is_same_secret(own: &str, shown: &str) -> bool {
    let (own, shown) = (own.as_bytes(), shown.as_bytes());
    let differences = own.iter().zip(shown).fold(0, |sum, (own, shown)| sum | (own ^ shown));
    own.len() == shown.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_it() {
        assert!(is_same_secret("abc", "abc"));
        for other in ["", "ab", "abcd", "abd", "xbc"] {
            assert!(!is_same_secret("abc", other), "{other}");
        }
    }
}
