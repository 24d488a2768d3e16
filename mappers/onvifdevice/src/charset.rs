//! The letters of a document, by what it says of them. Pure.

use std::borrow::Cow;

/// 200 bytes in which a document says how it is written.
const SAID_WITHIN: usize = 200;
/// What Windows-1252 has at 0x80 to 0x9F, where ISO-8859-1 has nothing that anybody writes (WHATWG Encoding §10).
const WINDOWS: [char; 32] = [
    '\u{20AC}', '\u{81}', '\u{201A}', '\u{192}', '\u{201E}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2C6}',
    '\u{2030}', '\u{160}', '\u{2039}', '\u{152}', '\u{8D}', '\u{17D}', '\u{8F}', '\u{90}', '\u{2018}',
    '\u{2019}', '\u{201C}', '\u{201D}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2DC}', '\u{2122}', '\u{161}',
    '\u{203A}', '\u{153}', '\u{9D}', '\u{17E}', '\u{178}',
];

/// A document of a camera as text. It is UTF-8 unless it says ISO-8859-1 or Windows-1252; what is neither spoils nothing else, since names
/// of profiles are in whatever letters somebody has typed.
pub(crate) fn decoded(document: &[u8]) -> Cow<'_, str> {
    if let Some(document) = document.strip_prefix(b"\xEF\xBB\xBF") {
        return String::from_utf8_lossy(document);
    }
    if !document.is_ascii() && is_western(document) {
        return document.iter().map(|byte| letter(*byte)).collect::<String>().into();
    }
    String::from_utf8_lossy(document)
}

fn letter(byte: u8) -> char {
    let windows = byte.checked_sub(0x80).and_then(|at| WINDOWS.get(usize::from(at)));
    windows.copied().unwrap_or(char::from(byte))
}

/// Whether its declaration (XML 1.0 §4.3.3) names one of both.
fn is_western(document: &[u8]) -> bool {
    let head = document.get(..SAID_WITHIN).unwrap_or(document).trim_ascii_start();
    let said = || {
        let declaration = std::str::from_utf8(head.split(|byte| *byte == b'>').next()?).ok()?;
        let (_, value) = declaration.strip_prefix("<?xml")?.split_once("encoding")?;
        let value = value.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        value.get(1..)?.split(quote).next()
    };
    said().is_some_and(|name| {
        ["ISO-8859-1", "ISO8859-1", "ISO_8859-1", "latin1", "windows-1252", "cp1252"]
            .iter()
            .any(|western| western.eq_ignore_ascii_case(name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_letters_that_it_says() {
        let of = |said: &str, rest: &[u8]| decoded(&[said.as_bytes(), rest].concat()).into_owned();
        for said in [
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>",
            "\n<?xml version='1.0'  encoding = 'iso-8859-1' ?>",
            "<?xml version=\"1.0\" encoding=\"Windows-1252\"?>",
        ] {
            assert_eq!(of(said, b"<r>\xC9t\xE9 \x80</r>"), format!("{said}<r>\u{c9}t\u{e9} \u{20ac}</r>"));
        }
        for said in [
            "",
            "<?xml version=\"1.0\"?>",
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>",
            "<?xml encoding=\"ISO-8859-1",
        ] {
            assert_eq!(of(said, "\u{c9}\u{e9}".as_bytes()), format!("{said}\u{c9}\u{e9}"));
            assert_eq!(of(said, b"\xC9-"), format!("{said}\u{fffd}-"));
        }
        assert_eq!(decoded(b"\xEF\xBB\xBF\xC3\x89"), "\u{c9}");
    }
}
