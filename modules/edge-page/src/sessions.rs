//! Who may look: tickets, each of which lets one browser in once, and the sessions of those that came in. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use beehive::Moment;
use https::is_same_secret;

/// 2 min from `keadm ctl page` to the browser.
pub(crate) const TICKET_LIVES: Duration = Duration::from_secs(120);
/// 8 tickets that nobody has used; the oldest goes first.
const TICKETS: usize = 8;
/// 12 h: a shift. A page renews itself, so that it is not seen whether a person still looks.
pub(crate) const SESSION_LIVES: Duration = Duration::from_secs(12 * 3600);
/// 8 browsers; the oldest goes first.
const SESSIONS: usize = 8;

/// Random bytes as text: a secret that nobody guesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// Of 32 bytes.
    pub(crate) fn of(first: [u8; 16], second: [u8; 16]) -> Secret {
        Secret(first.iter().chain(&second).map(|byte| format!("{byte:02x}")).collect())
    }

    /// As it stands in a URL or a cookie.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    fn is(&self, shown: &str) -> bool {
        is_same_secret(&self.0, shown)
    }
}

/// A browser that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    /// Below this path it looks, and its cookie is sent there alone.
    pub(crate) path: Secret,
    /// What it shows.
    pub(crate) cookie: Secret,
}

/// All of them, from one opening of the port to its closing.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    tickets: VecDeque<(Secret, Moment)>,
    sessions: VecDeque<(Session, Moment)>,
}

impl Sessions {
    /// One more may come in.
    pub(crate) fn invite(&mut self, ticket: Secret, now: Moment) {
        self.tickets.push_back((ticket, now + TICKET_LIVES));
        while self.tickets.len() > TICKETS {
            self.tickets.pop_front();
        }
    }

    /// Lets in who shows a ticket, which is worth nothing from then on. False: it is none.
    pub(crate) fn enter(&mut self, ticket: &str, session: Session, now: Moment) -> bool {
        self.tickets.retain(|(_, until)| now < *until);
        let Some(place) = self.tickets.iter().position(|(own, _)| own.is(ticket)) else { return false };
        self.tickets.remove(place);
        self.sessions.push_back((session, now + SESSION_LIVES));
        while self.sessions.len() > SESSIONS {
            self.sessions.pop_front();
        }
        true
    }

    /// Whether one of these cookies is of the session that looks below this path.
    pub(crate) fn is_in(&self, path: &str, cookies: &[&str], now: Moment) -> bool {
        let own = self.sessions.iter().filter(|(_, until)| now < *until).map(|(session, _)| session);
        own.filter(|own| own.path.is(path)).any(|own| cookies.iter().any(|shown| own.cookie.is(shown)))
    }

    /// How many browsers came in and were not forgotten for newer ones.
    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> Secret {
        Secret::of([number; 16], [number; 16])
    }

    fn session(number: u8) -> Session {
        Session { path: secret(number), cookie: secret(number + 100) }
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn is_in(sessions: &Sessions, path: u8, cookie: u8, now: Moment) -> bool {
        sessions.is_in(secret(path).text(), &[secret(cookie).text()], now)
    }

    #[test]
    fn a_ticket_lets_one_browser_in_once_and_not_for_long() {
        let mut sessions = Sessions::default();
        sessions.invite(secret(1), at(0));
        sessions.invite(secret(2), at(0));
        assert!(
            !sessions.enter("", session(3), at(1)) && !sessions.enter(secret(9).text(), session(3), at(1))
        );
        assert!(sessions.enter(secret(1).text(), session(3), at(1)));
        assert!(!sessions.enter(secret(1).text(), session(4), at(1)), "once");
        assert!(!sessions.enter(secret(2).text(), session(4), at(120)), "too late");
        assert_eq!(sessions.count(), 1);
    }

    #[test]
    fn both_path_and_cookie_are_needed_and_of_one_session() {
        let mut sessions = Sessions::default();
        for number in [1, 2] {
            sessions.invite(secret(number), at(0));
            assert!(sessions.enter(secret(number).text(), session(number), at(0)));
        }
        assert!(is_in(&sessions, 1, 101, at(5)) && is_in(&sessions, 2, 102, at(5)));
        assert!(!is_in(&sessions, 1, 102, at(5)) && !is_in(&sessions, 3, 101, at(5)));
        assert!(!sessions.is_in(secret(1).text(), &[], at(5)));
        let both = [secret(102), secret(101)];
        assert!(sessions.is_in(secret(1).text(), &both.each_ref().map(Secret::text), at(5)));
        assert!(!is_in(&sessions, 1, 101, at(12 * 3600)), "its time is over");
    }

    #[test]
    fn there_are_few_and_the_oldest_goes() {
        let mut sessions = Sessions::default();
        for number in 0..20 {
            sessions.invite(secret(number), at(0));
        }
        assert!(!sessions.enter(secret(11).text(), session(1), at(0)), "12 newer ones came");
        assert!(sessions.enter(secret(12).text(), session(1), at(0)));
        for number in 30..38 {
            sessions.invite(secret(number), at(0));
            assert!(sessions.enter(secret(number).text(), session(number), at(0)));
        }
        assert_eq!(sessions.count(), 8);
        assert!(!is_in(&sessions, 1, 101, at(1)) && is_in(&sessions, 30, 130, at(1)));
    }
}
