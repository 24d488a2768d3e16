//! What a camera says of its clock. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::xml::Element;

/// From the answer to `GetSystemDateAndTime` (Core §8.3.6). None: it does not say it, or says what is no time.
pub(crate) fn of_answer(answer: &Element) -> Option<Timestamp> {
    let utc = answer.at("SystemDateAndTime/UTCDateTime")?;
    let number = |path: &str| utc.text_at(path)?.parse::<i8>().ok();
    let year = utc.text_at("Date/Year")?.parse().ok()?;
    let time = DateTime::new(
        year,
        number("Date/Month")?,
        number("Date/Day")?,
        number("Time/Hour")?,
        number("Time/Minute")?,
        // A leap second is none to us.
        number("Time/Second")?.min(59),
        0,
    );
    Some(time.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// From the head of any answer (`Date`, RFC 9110 §6.6.1), for cameras that do not say it otherwise.
pub(crate) fn of_header(date: &str) -> Option<Timestamp> {
    Some(jiff::fmt::rfc2822::parse(date).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn a_clock_is_read_and_what_is_no_time_is_none() {
        let said = |date: &str, time: &str| {
            let answer = format!(
                "<r><SystemDateAndTime><UTCDateTime><Time>{time}</Time><Date>{date}</Date></UTCDateTime></SystemDateAndTime></r>"
            );
            of_answer(&parse(answer.as_bytes()).unwrap()).map(|time| time.to_string())
        };
        let date = "<Year>2026</Year><Month>2</Month><Day>28</Day>";
        let time = "<Hour>23</Hour><Minute>59</Minute><Second>60</Second>";
        assert_eq!(said(date, time).as_deref(), Some("2026-02-28T23:59:59Z"));
        assert_eq!(said("<Year>2026</Year><Month>2</Month><Day>30</Day>", time), None);
        assert_eq!(said(date, "<Hour>999</Hour>"), None);
        assert_eq!(said("<Year>99999</Year><Month>1</Month><Day>1</Day>", time), None);
        assert_eq!(of_header("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().to_string(), "1994-11-06T08:49:37Z");
        assert_eq!(of_header("yesterday"), None);
    }
}
