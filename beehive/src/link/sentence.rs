//! Sentences that the other end has said, as far as they are listened to.

/// 1 KiB: of a longer sentence the rest is not looked at. They end up in logs and in what people read.
pub const SENTENCE_MAX: usize = 1024;

/// The beginning of what the other end has said, at most [`SENTENCE_MAX`] bytes, in one line: who dials must not fill the log of whom he reaches, nor
/// write lines of his own into it.
pub fn sentence(said: &[u8]) -> String {
    // A character that is cut in half or is none becomes one of three bytes.
    let begin = said.get(..SENTENCE_MAX).unwrap_or(said);
    let mut text: String = String::from_utf8_lossy(begin)
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect();
    text.truncate(text.floor_char_boundary(SENTENCE_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_as_it_is_up_to_a_bound_and_in_one_line() {
        assert_eq!(
            sentence("no room on the disk: ENOSPC, für edge-1".as_bytes()),
            "no room on the disk: ENOSPC, für edge-1"
        );
        assert_eq!(
            sentence(b"all is well\nERROR\x1b[31m the cloud burns"),
            "all is well ERROR [31m the cloud burns"
        );
        for filler in [vec![b'a'; 1 << 20], vec![0xff; 1 << 20], "ü".repeat(1 << 19).into_bytes()] {
            let said = sentence(&[b"x".as_slice(), &filler].concat());
            assert!((1000..=SENTENCE_MAX).contains(&said.len()), "{}", said.len());
        }
    }
}
