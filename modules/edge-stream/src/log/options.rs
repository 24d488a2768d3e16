//! What of a log is asked for: `PodLogOptions` as a kubelet reads it from the query, and refuses it.

use jiff::Timestamp;

use crate::error::Refusal;
use crate::query::Query;

/// Which of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    All,
    Stdout,
    Stderr,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Start,
    /// So many seconds before the call.
    Seconds(i64),
    Time(Timestamp),
}

/// The options of a call for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    /// The last so many lines.
    pub(crate) tail: Option<u64>,
    pub(crate) since: Since,
    /// So many bytes of output at the most.
    pub(crate) limit: Option<u64>,
    pub(crate) stream: Stream,
}

impl LogOptions {
    pub(crate) fn parse(query: &Query) -> Result<LogOptions, Refusal> {
        let undecodable = || Refusal::bad(r#"{"message": "Unable to decode query."}"#);
        let invalid = || Refusal::new(422, r#"{"message": "Invalid request."}"#);
        let number = |name: &str| match query.first(name) {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| undecodable()),
        };
        let at_least = |least: i64, number: Option<i64>| match number {
            Some(number) if number < least => Err(invalid()),
            number => Ok(number.and_then(|number| u64::try_from(number).ok())),
        };
        let tail = match query.first("tail").filter(|tail| !tail.is_empty()) {
            Some("all") => None,
            Some(tail) => Some(tail.parse::<i64>().map_err(|_| undecodable())?),
            None => number("tailLines")?,
        };
        let (limit, seconds) = (number("limitBytes")?, number("sinceSeconds")?);
        let time = match query.first("sinceTime") {
            None | Some("" | "null") => None,
            Some(text) => Some(text.parse::<Timestamp>().map_err(|_| undecodable())?),
        };
        let stream = match query.first("stream") {
            None | Some("All") => Stream::All,
            Some("Stdout") => Stream::Stdout,
            Some("Stderr") => Stream::Stderr,
            Some(_) => return Err(invalid()),
        };
        let (tail, limit) = (at_least(0, tail)?, at_least(1, limit)?);
        let since = match (seconds, time) {
            (Some(_), Some(_)) => return Err(invalid()),
            (Some(seconds), None) if seconds < 1 => return Err(invalid()),
            (Some(seconds), None) => Since::Seconds(seconds),
            (None, Some(time)) => Since::Time(time),
            (None, None) => Since::Start,
        };
        // Which lines are the last ones is found without reading what they say.
        if stream != Stream::All && tail.is_some() {
            return Err(invalid());
        }
        let (follow, previous) = (query.is_set("follow"), query.is_set("previous"));
        Ok(LogOptions {
            follow,
            previous,
            timestamps: query.is_set("timestamps"),
            tail,
            since,
            limit,
            stream,
        })
    }

    /// The time before which lines are left out.
    pub(crate) fn since_at(&self, now: Timestamp) -> Option<Timestamp> {
        match self.since {
            Since::Start => None,
            Since::Time(time) => Some(time),
            // Before all time: everything.
            Since::Seconds(seconds) => now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Target;

    fn parse(query: &str) -> Result<LogOptions, Refusal> {
        LogOptions::parse(&Target::parse(&format!("/x?{query}")).query)
    }

    #[test]
    fn every_option_is_read() {
        let all =
            parse("follow=true&previous=1&timestamps=&tailLines=7&sinceSeconds=3&limitBytes=10").unwrap();
        let expected = LogOptions {
            follow: true,
            previous: true,
            timestamps: true,
            tail: Some(7),
            since: Since::Seconds(3),
            limit: Some(10),
            stream: Stream::All,
        };
        assert_eq!(all, expected);
        let time = parse("sinceTime=2026-11-28T11:00:00%2B01:00&stream=Stderr").unwrap();
        assert_eq!(time.since, Since::Time("2026-11-28T10:00:00Z".parse().unwrap()));
        assert_eq!((time.stream, time.follow, time.tail), (Stream::Stderr, false, None));
        assert_eq!(parse("sinceTime=null&sinceSeconds=1").unwrap().since, Since::Seconds(1));
        assert_eq!(parse("tail=3&tailLines=9").unwrap().tail, Some(3));
        assert_eq!(parse("tail=all&tailLines=9").unwrap().tail, None);
    }

    #[test]
    fn what_is_no_option_is_refused_as_a_kubelet_does() {
        for query in
            ["tailLines=x", "tailLines=", "limitBytes=1.5", "sinceSeconds=", "sinceTime=now", "tail=x"]
        {
            let refusal = parse(query).unwrap_err();
            let expected = (400, r#"{"message": "Unable to decode query."}"#);
            assert_eq!((refusal.status, refusal.text.as_str()), expected, "{query}");
        }
        for query in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=5&sinceTime=2026-11-28T11:00:00Z",
            "stream=stdout",
            "stream=Stdout&tailLines=1",
        ] {
            let refusal = parse(query).unwrap_err();
            let expected = (422, r#"{"message": "Invalid request."}"#);
            assert_eq!((refusal.status, refusal.text.as_str()), expected, "{query}");
        }
    }

    #[test]
    fn seconds_count_back_from_the_call() {
        let now: Timestamp = "2026-11-28T11:00:00Z".parse().unwrap();
        let since = parse("sinceSeconds=90").unwrap().since_at(now);
        assert_eq!(since, Some("2026-11-28T10:58:30Z".parse().unwrap()));
        assert_eq!(parse("sinceSeconds=9223372036854775807").unwrap().since_at(now), None);
    }
}
