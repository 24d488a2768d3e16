//! What a camera says of its clock. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::xml::Element;

/// 64 letters of a time zone; the longest of POSIX's in use has 40.
const ZONE_MAX: usize = 64;

/// From the answer to `GetSystemDateAndTime` (Core §8.3.6): its UTC, or else its local time by the zone that it names, which is written as
/// POSIX has it (`CET-1CEST,M3.5.0,M10.5.0/3`). None: it does not say it, or says what is no time.
pub(crate) fn of_answer(answer: &Element) -> Option<Timestamp> {
    let said = answer.child("SystemDateAndTime")?;
    let utc = said.child("UTCDateTime").and_then(time);
    if let Some(utc) = utc {
        return Some(utc.to_zoned(TimeZone::UTC).ok()?.timestamp());
    }
    let zone = said.text_at("TimeZone/TZ").filter(|zone| zone.len() <= ZONE_MAX)?;
    let zone = TimeZone::posix(zone).ok()?;
    Some(time(said.child("LocalDateTime")?)?.to_zoned(zone).ok()?.timestamp())
}

fn time(said: &Element) -> Option<DateTime> {
    let number = |path: &str| said.text_at(path)?.parse::<i8>().ok();
    let year = said.text_at("Date/Year")?.parse().ok()?;
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
    time.ok()
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

    #[test]
    fn local_time_counts_with_its_zone_where_nothing_else_is_said() {
        let said = |zone: &str, month: u8, utc: &str| {
            let answer = format!(
                "<r><SystemDateAndTime><TimeZone><TZ>{zone}</TZ></TimeZone>{utc}<LocalDateTime><Time><Hour>12</Hour><Minute>0</Minute>\
                 <Second>0</Second></Time><Date><Year>2026</Year><Month>{month}</Month><Day>1</Day></Date></LocalDateTime>\
                 </SystemDateAndTime></r>"
            );
            of_answer(&parse(answer.as_bytes()).unwrap()).map(|time| time.to_string())
        };
        let berlin = "CET-1CEST,M3.5.0,M10.5.0/3";
        assert_eq!(said(berlin, 1, "").as_deref(), Some("2026-01-01T11:00:00Z"));
        assert_eq!(said(berlin, 7, "").as_deref(), Some("2026-07-01T10:00:00Z"));
        assert_eq!(said("CST-8", 1, "<UTCDateTime/>").as_deref(), Some("2026-01-01T04:00:00Z"));
        assert_eq!(said("&lt;+0530&gt;-5:30", 1, "").as_deref(), Some("2026-01-01T06:30:00Z"));
        for none in ["", "Mitteleuropa", "CET", &"A".repeat(1000)] {
            assert_eq!(said(none, 1, ""), None, "{none}");
        }
    }
}
