//! The parts of an answer that does not end: `multipart/x-mixed-replace`, as cameras send Motion JPEG. Pure: bytes come in.

/// 8 KiB: a part's head is no longer.
const HEAD_MAX: usize = 8 << 10;
/// 70 letters (RFC 2046 §5.1.1).
const BOUNDARY_MAX: usize = 70;

/// What of an answer has come and was not taken yet. It holds at most one part, its head, and what came along with its end.
#[derive(Debug)]
pub(crate) struct Parts {
    boundary: Vec<u8>,
    waiting: Vec<u8>,
    /// The longest part.
    most: usize,
    /// Up to there no boundary begins in the part that has no length.
    searched: usize,
}

impl Parts {
    /// From the `Content-Type` of the answer; None: it has no such parts.
    pub(crate) fn of(content_type: &str, most: usize) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/x-mixed-replace") {
            return None;
        }
        let named = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let mut boundaries = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"));
        // Some write the two dashes that go before it here, too.
        let (_, boundary) = boundaries.next()?;
        let boundary = boundary.trim().trim_matches('"').trim_start_matches("--");
        if boundary.is_empty() || boundary.len() > BOUNDARY_MAX {
            return None;
        }
        let boundary = format!("--{boundary}").into_bytes();
        Some(Parts { boundary, waiting: Vec::new(), most, searched: 0 })
    }

    /// More of the answer has come.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next part, once it is whole.
    ///
    /// # Errors
    /// A sentence, when what comes is no such answer, or a part is too long.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let looked_at = self.waiting.get(..HEAD_MAX).unwrap_or(&self.waiting);
        let Some(end) = find(looked_at, b"\r\n\r\n") else {
            let is_too_long = self.waiting.len() >= HEAD_MAX;
            return if is_too_long { Err("a part has no end of its head".to_owned()) } else { Ok(None) };
        };
        let head = self.waiting.get(..end).unwrap_or_default();
        if find(head, &self.boundary).is_none() {
            return Err("a part does not begin with the boundary".to_owned());
        }
        let (body, length) = (end + 4, length(head)?);
        match length {
            Some(length) if length > self.most => Err(self.too_long()),
            Some(length) => Ok(self.take(body, body.saturating_add(length))),
            None => self.until_boundary(body),
        }
    }

    /// A part that does not say how long it is.
    fn until_boundary(&mut self, body: usize) -> Result<Option<Vec<u8>>, String> {
        let from = self.searched.max(body);
        let found = find(self.waiting.get(from..).unwrap_or_default(), &self.boundary);
        let Some(at) = found.map(|at| from + at) else {
            // The boundary may begin in what is here.
            self.searched = self.waiting.len().saturating_sub(self.boundary.len()).max(body);
            let is_too_long = self.waiting.len() - body.min(self.waiting.len()) > self.most;
            return if is_too_long { Err(self.too_long()) } else { Ok(None) };
        };
        let line_end = if self.waiting.get(..at).is_some_and(|part| part.ends_with(b"\r\n")) { 2 } else { 0 };
        Ok(self.take(body, (at - line_end).max(body)))
    }

    fn take(&mut self, body: usize, end: usize) -> Option<Vec<u8>> {
        let part = self.waiting.get(body..end)?.to_vec();
        self.waiting.drain(..end);
        self.searched = 0;
        Some(part)
    }

    fn too_long(&self) -> String {
        format!("a picture has more than {} bytes; raise `maxBytes`", self.most)
    }
}

/// What the head of a part says of its length.
fn length(head: &[u8]) -> Result<Option<usize>, String> {
    let head = String::from_utf8_lossy(head);
    let named = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"));
    let Some((_, length)) = lengths.next() else { return Ok(None) };
    match length.trim().parse() {
        Ok(length) => Ok(Some(length)),
        Err(_) => Err("a part's Content-Length is no number".to_owned()),
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/x-mixed-replace; boundary=\"--next\"";

    /// All parts of what comes in pieces of so many bytes.
    fn all(text: &[u8], pieces: usize, most: usize) -> Result<Vec<Vec<u8>>, String> {
        let (mut parts, mut found) = (Parts::of(TYPE, most).unwrap(), Vec::new());
        for piece in text.chunks(pieces) {
            parts.feed(piece);
            while let Some(part) = parts.next()? {
                found.push(part);
            }
        }
        Ok(found)
    }

    #[test]
    fn parts_are_found_with_and_without_their_length_in_pieces_of_any_size() {
        let text = b"--next\r\nContent-Type: image/jpeg\r\ncontent-length: 5\r\n\r\n\r\n\r\n.\r\n--next\r\n\r\nno length\r\n--next\r\n\r\n--\r\n--next\r\n\r\ncut";
        for pieces in 1..text.len() {
            let found = all(text, pieces, 100).unwrap();
            assert_eq!(found, [b"\r\n\r\n.".to_vec(), b"no length".to_vec(), b"--".to_vec()], "{pieces}");
        }
    }

    #[test]
    fn what_is_no_such_answer_or_too_long_is_refused_before_it_is_kept() {
        for kind in ["image/jpeg", "multipart/x-mixed-replace", "multipart/x-mixed-replace; boundary=--"] {
            assert!(Parts::of(kind, 10).is_none(), "{kind}");
        }
        let head = |rest: &str| format!("--next\r\n{rest}");
        for (text, said) in [
            ("x".repeat(HEAD_MAX), "end of its head"),
            ("--other\r\n\r\n".to_owned(), "boundary"),
            (head("Content-Length: 11\r\n\r\n"), "`maxBytes`"),
            (head("Content-Length: 99999999999999999999\r\n\r\n"), "no number"),
            (head(&format!("\r\n{}", "x".repeat(80))), "`maxBytes`"),
        ] {
            let refusal = all(text.as_bytes(), 64, 10).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
