use super::*;
use crate::query::Target;

const NOW: &str = "2026-11-28T11:00:00Z";

fn lines(query: &str) -> Lines {
    let options = LogOptions::parse(&Target::parse(&format!("/x?{query}")).query).unwrap();
    Lines::new(&options, NOW.parse().unwrap())
}

/// What a file comes to, fed in pieces of every size alike.
fn output(query: &str, file: &str) -> String {
    let whole = in_pieces(query, file, usize::MAX);
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(in_pieces(query, file, size), whole, "in pieces of {size}");
    }
    whole
}

fn in_pieces(query: &str, file: &str, size: usize) -> String {
    let (mut lines, mut out) = (lines(query), Vec::new());
    if !lines.is_done() {
        for piece in file.as_bytes().chunks(size.min(file.len().max(1))) {
            if lines.feed(piece, &mut out).unwrap() == Fed::Done {
                return String::from_utf8(out).unwrap();
            }
        }
        lines.end_of_file().unwrap();
    }
    String::from_utf8(out).unwrap()
}

const FILE: &str = "2026-11-28T10:00:00.5+01:00 stdout F one\n\
                    2026-11-28T10:30:00Z stderr F two\n\
                    2026-11-28T10:59:59.123456789Z stdout F three\n";

#[test]
fn text_is_what_is_left_of_a_line() {
    assert_eq!(output("", FILE), "one\ntwo\nthree\n");
    assert_eq!(output("stream=Stdout", FILE), "one\nthree\n");
    assert_eq!(output("stream=Stderr", FILE), "two\n");
    assert_eq!(
        output("", "2026-11-28T10:00:00Z stdout F \n2026-11-28T10:00:00Z stdout F  a b \n"),
        "\n a b \n"
    );
}

#[test]
fn times_have_nine_digits_and_their_own_zone() {
    let expected = "2026-11-28T10:00:00.500000000+01:00 one\n2026-11-28T10:30:00.000000000Z two\n\
                    2026-11-28T10:59:59.123456789Z three\n";
    assert_eq!(output("timestamps=true", FILE), expected);
}

#[test]
fn lines_before_the_time_are_left_out() {
    assert_eq!(output("sinceSeconds=1800", FILE), "two\nthree\n");
    assert_eq!(output("sinceTime=2026-11-28T10:30:00.1Z", FILE), "three\n");
    assert_eq!(output("sinceTime=2026-11-28T09:00:00.5Z", FILE), "one\ntwo\nthree\n");
}

#[test]
fn so_many_lines_and_bytes_and_no_more() {
    assert_eq!(output("tailLines=2", FILE), "one\ntwo\n", "the reader began at the right one");
    assert_eq!(output("tailLines=0", FILE), "");
    assert_eq!(output("tailLines=2&follow=true", FILE), "one\ntwo\nthree\n");
    assert_eq!(output("limitBytes=6", FILE), "one\ntw");
    assert_eq!(output("limitBytes=4", FILE), "one\n");
    assert_eq!(output("limitBytes=3&timestamps=1", FILE), "202");
}

#[test]
fn pieces_of_a_line_are_joined_and_have_one_time() {
    let file = "2026-11-28T10:00:00Z stdout P ab\n2026-11-28T10:00:01Z stdout P cd\n2026-11-28T10:00:02Z stdout F ef\n\
                2026-11-28T10:00:03Z stdout F next\n";
    assert_eq!(output("", file), "abcdef\nnext\n");
    let timed = "2026-11-28T10:00:00.000000000Z abcdef\n2026-11-28T10:00:03.000000000Z next\n";
    assert_eq!(output("timestamps=1", file), timed);
    // A piece counts as a line.
    assert_eq!(output("tailLines=2", file), "abcd");
    // Tags after the first say nothing.
    assert_eq!(
        output("", "2026-11-28T10:00:00Z stdout P:x ab\n2026-11-28T10:00:00Z stdout F:P cd\n"),
        "abcd\n"
    );
    assert_eq!(
        output("timestamps=1", "2026-11-28T10:00:00Z stdout P \n2026-11-28T10:00:00Z stdout F a\n")
            .matches("2026")
            .count(),
        2,
        "an empty piece begins nothing"
    );
}

#[test]
fn a_line_without_an_end_is_shown_and_ends_with_its_file() {
    assert_eq!(
        output("", "2026-11-28T10:00:00Z stdout F whole\n2026-11-28T10:00:00Z stdout F half"),
        "whole\nhalf"
    );
    let (mut lines, mut out) = (lines(""), Vec::new());
    lines.feed(b"2026-11-28T10:00:00Z stdout P half", &mut out).unwrap();
    lines.end_of_file().unwrap();
    lines.feed(b"2026-11-28T10:00:00Z stdout F other\n", &mut out).unwrap();
    assert_eq!(out, b"halfother\n");
}

#[test]
fn a_carriage_return_is_text() {
    assert_eq!(
        output("", "2026-11-28T10:00:00Z stdout F a\r\n2026-11-28T10:00:00Z stdout F \r\n"),
        "a\r\n\r\n"
    );
}

#[test]
fn a_line_that_is_none_is_passed_over_unless_it_is_the_first() {
    for odd in [
        "",
        "x",
        "2026-11-28 stdout F x",
        "2026-11-28T10:00:00Z stdlog F x",
        "2026-11-28T10:00:00Z stdout",
        "\u{0}\u{0}\u{0}",
        &"y".repeat(5000),
    ] {
        let file = format!("{FILE}{odd}\n2026-11-28T10:59:59Z stdout F last\n");
        assert_eq!(output("", &file), "one\ntwo\nthree\nlast\n", "{odd:?}");
        let mut out = Vec::new();
        let error = lines("").feed(format!("{odd}\n{FILE}").as_bytes(), &mut out).unwrap_err();
        assert!(
            error.to_string().starts_with("failed to get parse function: unsupported log format: \""),
            "{error}"
        );
        assert!(error.to_string().len() < 1000 && out.is_empty());
    }
}

#[test]
fn a_line_of_any_length_is_not_held() {
    let (mut lines, mut out) = (lines(""), Vec::new());
    lines.feed(b"2026-11-28T10:00:00Z stdout F ", &mut out).unwrap();
    let piece = vec![b'a'; 64 << 10];
    for _ in 0..1000 {
        out.clear();
        lines.feed(&piece, &mut out).unwrap();
        assert_eq!(out.len(), piece.len());
        assert!(lines.head.capacity() <= 2 * HEAD_MAX);
    }
    // Neither is one that is none.
    lines.feed(b"\n", &mut out).unwrap();
    for _ in 0..1000 {
        out.clear();
        lines.feed(&piece, &mut out).unwrap();
        assert!(out.is_empty() && lines.head.capacity() <= 2 * HEAD_MAX);
    }
}
