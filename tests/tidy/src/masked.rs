//! Rust source with what is not code blanked out, byte for byte, so that offsets and lines stay.

/// `source` with comments and the insides of string and character literals replaced by spaces. Quotes stay.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length);
            blank(&mut out, at, end);
            end
        } else if rest.starts_with(b"/*") {
            let end = comment_end(bytes, at);
            blank(&mut out, at, end);
            end
        } else if let Some(hashes) = raw_string(bytes, at) {
            let open = at + 1 + hashes + 1;
            let close = raw_string_close(bytes, open, hashes);
            blank(&mut out, open, close);
            (close + 1 + hashes).min(bytes.len())
        } else if rest[0] == b'"' {
            let close = string_close(bytes, at + 1);
            blank(&mut out, at + 1, close);
            close + 1
        } else if rest[0] == b'\''
            && let Some(close) = character_close(source, at)
        {
            blank(&mut out, at + 1, close);
            close + 1
        } else {
            at + 1
        };
        at = end;
    }
    // Only whole comments and whole literals became spaces, so that what is left is still UTF-8.
    String::from_utf8(out).unwrap_or_default()
}

/// The byte ranges of what only tests compile: each item below a `#[cfg(test)]` that has a body of its own.
pub(crate) fn test_ranges(code: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = code.as_bytes();
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        if ranges.last().is_some_and(|last| last.contains(&start)) {
            continue;
        }
        let Some(first) = code[start..].find(['{', ';']).map(|length| start + length) else {
            continue;
        };
        let end = if bytes[first] == b';' { first + 1 } else { body_end(bytes, first) };
        ranges.push(start..end);
    }
    ranges
}

/// The line, from 1, of a byte offset.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn blank(out: &mut [u8], from: usize, to: usize) {
    let to = to.min(out.len());
    for byte in out.iter_mut().take(to).skip(from) {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// How many hashes the raw string that begins here has, if one begins here. `r#name` is an identifier.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'r' {
        return None;
    }
    let before = at.checked_sub(1).map(|before| bytes[before]);
    let part_of_a_word = match before {
        // `br"…"` and `cr"…"`: the letter before is the prefix when no word stands before it.
        Some(b'b' | b'c') => at >= 2 && is_word(bytes[at - 2]),
        Some(byte) => is_word(byte),
        None => false,
    };
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    (!part_of_a_word && bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_string_close(bytes: &[u8], open: usize, hashes: usize) -> usize {
    (open..bytes.len())
        .find(|at| {
            bytes[*at] == b'"'
                && bytes[at + 1..].iter().take(hashes).filter(|byte| **byte == b'#').count() == hashes
        })
        .unwrap_or(bytes.len())
}

fn string_close(bytes: &[u8], open: usize) -> usize {
    let mut at = open;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Where a character literal ends; `None` for a lifetime.
fn character_close(source: &str, quote: usize) -> Option<usize> {
    let mut inside = source[quote + 1..].char_indices();
    let (_, first) = inside.next()?;
    if first == '\\' {
        // The escaped character itself may be a quote.
        inside.next()?;
        return inside.find(|(_, letter)| *letter == '\'').map(|(length, _)| quote + 1 + length);
    }
    inside.next().filter(|(_, letter)| *letter == '\'').map(|(length, _)| quote + 1 + length)
}

fn body_end(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_code_stays() {
        let source =
            "let a = \"x // y\"; // z\nlet b = r#\"q\"w\"#; /* é /* nn */ mm */ let c = '\\''; fn f<'a>() {}";
        let masked = code(source);
        assert_eq!(masked.len(), source.len());
        for gone in ["x //", "z", "q", "w", "é", "nn", "mm", "\\"] {
            assert!(!masked.contains(gone), "{gone} is still in {masked}");
        }
        for kept in ["let a = \"", "let b = r#\"", "let c = '", "fn f<'a>() {}"] {
            assert!(masked.contains(kept), "{kept} is not in {masked}");
        }
        assert_eq!(line_of(&masked, masked.find("let b").unwrap()), 2);
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_string_and_a_prefix_is_no_word() {
        assert!(!code("f(\"a\\\"hidden\")").contains("hidden"));
        assert!(!code("f(br\"hidden\\\")").contains("hidden"));
        assert!(code("r#type + shown").contains("shown"));
    }

    #[test]
    fn only_the_item_below_the_attribute_is_a_test() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { } }\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}";
        let outside: String = {
            let ranges = test_ranges(source);
            source
                .char_indices()
                .filter(|(at, _)| !ranges.iter().any(|r| r.contains(at)))
                .map(|(_, c)| c)
                .collect()
        };
        assert!(outside.contains("fn a") && outside.contains("fn c") && outside.contains("fn d"));
        assert!(!outside.contains("fn b") && !outside.contains("more"));
    }
}
