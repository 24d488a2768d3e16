//! What a request is for, which is refused, and when the page is made anew. Pure.

use std::net::IpAddr;
use std::time::Duration;

use beehive::Moment;
use contract::edgepage::PageForm;

/// The cookie of a session.
pub(crate) const COOKIE: &str = "kubehive-page";
/// 1 s: who asks within it sees what was made for another.
pub(crate) const FRESH: Duration = Duration::from_secs(1);
/// 10 s, after which one that was begun and never made counts as none.
const MADE_WITHIN: Duration = Duration::from_secs(10);
/// 32 wait for one that is being made.
pub(crate) const WAITING: usize = 32;

/// What is looked at of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// Of the request line, where it has one.
    pub(crate) authority: Option<&'a str>,
    /// The only header `Host`; `None`: there is none, or several, or it is no text.
    pub(crate) host: Option<&'a str>,
    /// `Sec-Fetch-Site`: from whose page a browser comes; others send none. Empty: there are several, or it is no text.
    pub(crate) fetch_site: Option<&'a str>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A browser wants to come in by this ticket.
    Enter(&'a str),
    /// The page, below the path of a session.
    Page { path: &'a str, form: PageForm },
    /// Anything else: it is said how to come in.
    Elsewhere,
}

/// Why a request is refused, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is for another host: a name of somebody else's that leads here (DNS rebinding), or none.
    Host,
    /// It wants to write.
    Method,
    /// A page of elsewhere asks, that of another port of this host among them.
    OtherPage,
}

/// What `request` is for.
///
/// # Errors
/// Why it is refused.
pub(crate) fn route<'a>(request: &RequestHead<'a>) -> Result<Route<'a>, Refused> {
    if !request.host.is_some_and(is_loopback) || !request.authority.is_none_or(is_loopback) {
        return Err(Refused::Host);
    }
    let is_get = request.method == "GET";
    if !is_get && request.method != "HEAD" {
        return Err(Refused::Method);
    }
    let parts: Vec<&str> = request.path.splitn(5, '/').collect();
    let route = match parts.as_slice() {
        // A link to it may stand anywhere, and it is worth something once. A look at its head alone does not use it up.
        ["", "enter", ticket] if is_get => return Ok(Route::Enter(ticket)),
        ["", "s", path, ""] => Route::Page { path, form: PageForm::Html },
        ["", "s", path, "page.json"] => Route::Page { path, form: PageForm::Json },
        _ => Route::Elsewhere,
    };
    match request.fetch_site {
        None | Some("none" | "same-origin") => Ok(route),
        Some(_) if route == Route::Elsewhere => Ok(route),
        Some(_) => Err(Refused::OtherPage),
    }
}

/// Whether a host, with or without a port, is this machine's loopback: nobody else's name can be. The port may be another one, for a
/// tunnel from elsewhere begins where it likes.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':').or(port.is_empty().then_some("0"))),
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("0")),
        },
    };
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    let is_name = name.eq_ignore_ascii_case("localhost");
    is_port && (is_name || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

/// The values of [`COOKIE`] in a header `Cookie`.
pub(crate) fn cookies(header: &str) -> impl Iterator<Item = &str> {
    header
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == COOKIE).then_some(value))
}

/// What to do for somebody who wants to see the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Show what was made.
    Show,
    /// Have it wait for what is being made.
    Wait,
    /// The same, and begin to make it.
    Make,
    /// Too many wait.
    Refuse,
}

/// The making of pages: one at a time, and each for all who ask meanwhile and for a moment after.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Making {
    begun: Option<Moment>,
    made: Option<Moment>,
}

impl Making {
    /// Somebody asks, and so many wait already.
    pub(crate) fn asked(&mut self, waiting: usize, now: Moment) -> NextStep {
        if self.is_fresh(now) {
            return NextStep::Show;
        }
        if waiting >= WAITING {
            return NextStep::Refuse;
        }
        if self.begun.is_some_and(|begun| now.since(begun) < MADE_WITHIN) {
            return NextStep::Wait;
        }
        self.begun = Some(now);
        NextStep::Make
    }

    /// What was begun has ended; `is_made`: well.
    pub(crate) fn ended(&mut self, is_made: bool, now: Moment) {
        self.begun = None;
        self.made = is_made.then_some(now);
    }

    /// Whether what was made may still be shown.
    pub(crate) fn is_fresh(&self, now: Moment) -> bool {
        self.made.is_some_and(|made| now.since(made) < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: RequestHead<'_> = RequestHead {
        method: "GET",
        path: "/s/abc/",
        authority: None,
        host: Some("127.0.0.1:10360"),
        fetch_site: None,
    };

    #[test]
    fn only_names_of_loopback_are_answered() {
        for host in
            ["127.0.0.1", "127.0.0.1:10360", "127.8.9.1:1", "[::1]:8080", "[::1]", "localhost:3", "LOCALHOST"]
        {
            assert!(route(&RequestHead { host: Some(host), ..GOOD }).is_ok(), "{host}");
        }
        let rebound = [
            "evil.example",
            "evil.example:10360",
            "127.0.0.1.evil.example",
            "localhost.evil.example:10360",
            "192.0.2.1",
            "0.0.0.0:10360",
            "[::]:10360",
            "::1",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "[::1",
            "[::1]x",
            "",
            "user@127.0.0.1:1",
            "127.1",
            "2130706433",
            "a.localhost",
        ];
        for host in rebound {
            assert_eq!(route(&RequestHead { host: Some(host), ..GOOD }), Err(Refused::Host), "{host}");
            assert_eq!(route(&RequestHead { authority: Some(host), ..GOOD }), Err(Refused::Host), "{host}");
        }
        assert_eq!(route(&RequestHead { host: None, ..GOOD }), Err(Refused::Host));
    }

    #[test]
    fn nothing_writes() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", ""] {
            for path in ["/", "/s/abc/", "/enter/abc"] {
                assert_eq!(
                    route(&RequestHead { method, path, ..GOOD }),
                    Err(Refused::Method),
                    "{method} {path}"
                );
            }
        }
        assert!(route(&RequestHead { method: "HEAD", ..GOOD }).is_ok());
        let head = RequestHead { method: "HEAD", path: "/enter/abc", ..GOOD };
        assert_eq!(route(&head), Ok(Route::Elsewhere), "a ticket is not used up by a look");
    }

    #[test]
    fn paths_lead_to_the_page_and_nowhere_else() {
        let to = |path: &'static str| route(&RequestHead { path, ..GOOD }).unwrap();
        assert_eq!(to("/enter/abc"), Route::Enter("abc"));
        assert_eq!(to("/s/abc/"), Route::Page { path: "abc", form: PageForm::Html });
        assert_eq!(to("/s/abc/page.json"), Route::Page { path: "abc", form: PageForm::Json });
        for path in [
            "/",
            "",
            "/s/abc",
            "/s//x",
            "/s/abc/x",
            "/s/abc/page.json/",
            "/enter",
            "/enter/a/b",
            "//s/abc/",
            "/s/abc//",
        ] {
            assert_eq!(to(path), Route::Elsewhere, "{path}");
        }
    }

    #[test]
    fn a_page_of_elsewhere_does_not_get_it() {
        let from = |fetch_site, path| route(&RequestHead { fetch_site: Some(fetch_site), path, ..GOOD });
        for site in ["cross-site", "same-site", "x", ""] {
            assert_eq!(from(site, "/s/abc/"), Err(Refused::OtherPage), "{site}");
            assert_eq!(from(site, "/s/abc/page.json"), Err(Refused::OtherPage), "{site}");
            assert_eq!(from(site, "/enter/abc"), Ok(Route::Enter("abc")), "a link in a mail: {site}");
            assert_eq!(from(site, "/"), Ok(Route::Elsewhere));
        }
        assert!(from("none", "/s/abc/").is_ok() && from("same-origin", "/s/abc/").is_ok());
    }

    #[test]
    fn all_cookies_of_the_name_count() {
        let found = |header: &'static str| cookies(header).collect::<Vec<_>>();
        assert_eq!(found("a=b; kubehive-page=1;kubehive-page=2 ; kubehive-pager=3"), ["1", "2"]);
        assert_eq!(found("kubehive-page"), [] as [&str; 0]);
        assert_eq!(found("kubehive-page=a=b"), ["a=b"]);
    }

    #[test]
    fn a_hundred_who_ask_at_once_have_one_page_made() {
        let at = |ms| Moment(Duration::from_millis(ms));
        let mut making = Making::default();
        let steps: Vec<_> = (0..100).map(|waiting| making.asked(waiting, at(0))).collect();
        assert_eq!(steps.iter().filter(|step| **step == NextStep::Make).count(), 1);
        assert_eq!(steps.iter().filter(|step| **step == NextStep::Refuse).count(), 100 - WAITING);
        making.ended(true, at(300));
        assert_eq!(making.asked(0, at(1299)), NextStep::Show);
        assert_eq!(making.asked(0, at(1300)), NextStep::Make);
        assert_eq!(making.asked(1, at(11_299)), NextStep::Wait);
        assert_eq!(making.asked(1, at(11_300)), NextStep::Make, "what never ends is not waited for");
        making.ended(false, at(11_400));
        assert_eq!(making.asked(0, at(11_400)), NextStep::Make, "nothing was made");
    }
}
