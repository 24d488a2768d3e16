//! How often a credential may ask enrolment for something. Pure.
//!
//! Whoever holds a good token or a certificate of ours, also one that was given back, could have every request of his cost the
//! API server several. What is too much is refused before any of them.

use std::net::IpAddr;
use std::time::Duration;

use beehive::Moment;
use beehive::link::accept_limiter::{RateLimiter, address_prefix};

/// 100 a second and 1000 at once with one token: a site that joins as a whole.
const OF_TOKEN: (f64, f64) = (100.0, 1000.0);
/// 1 a second and 10 at once for one name: who is refused gains nothing by asking more often.
const OF_NAME: (f64, f64) = (1.0, 10.0);
/// 1 a second and 10 at once with one certificate: it has one name to give back.
const OF_CERTIFICATE: (f64, f64) = (1.0, 10.0);

/// One in 5 s and 30 at once of one address: tokens that are none. Whoever mistypes one has tries enough, and whoever guesses does not.
const OF_GUESSES: (f64, f64) = (0.2, 30.0);

/// Counts requests. What is remembered is bounded by [`RateLimiter`]; and a token that is used under ever new names is held back by
/// its own rate before it fills what is remembered of names.
pub(crate) struct RequestRateLimiter {
    tokens: RateLimiter<String>,
    names: RateLimiter<(String, String)>,
    certificates: RateLimiter<String>,
    guesses: RateLimiter<IpAddr>,
}

impl Default for RequestRateLimiter {
    fn default() -> Self {
        RequestRateLimiter {
            tokens: RateLimiter::new(OF_TOKEN.0, OF_TOKEN.1),
            names: RateLimiter::new(OF_NAME.0, OF_NAME.1),
            certificates: RateLimiter::new(OF_CERTIFICATE.0, OF_CERTIFICATE.1),
            guesses: RateLimiter::new(OF_GUESSES.0, OF_GUESSES.1),
        }
    }
}

impl RequestRateLimiter {
    /// One more join with the token of this id as this node.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn join(&mut self, token: &str, node: &str, now: Moment) -> Result<(), Duration> {
        self.tokens.take(&token.to_owned(), now)?;
        self.names.take(&(token.to_owned(), node.to_owned()), now)
    }

    /// Whether a token of this address is looked at: not where too many of its were none.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn may_show(&self, address: IpAddr, now: Moment) -> Result<(), Duration> {
        self.guesses.check(&address_prefix(address), now)
    }

    /// A token of this address was none.
    pub(crate) fn guessed(&mut self, address: IpAddr, now: Moment) {
        let _ = self.guesses.take(&address_prefix(address), now);
    }

    /// One more who gives the certificate with this serial back.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn give_back(&mut self, serial: &str, now: Moment) -> Result<(), Duration> {
        self.certificates.take(&serial.to_owned(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_millis(millis))
    }

    #[test]
    fn one_that_asks_again_and_again_is_held_back_and_others_are_not() {
        let mut limiter = RequestRateLimiter::default();
        let of = |limiter: &mut RequestRateLimiter, token: &str, node: &str, millis| {
            limiter.join(token, node, at(millis)).is_ok()
        };
        assert_eq!((0..5000).filter(|_| of(&mut limiter, "spent", "taken", 0)).count(), 10);
        assert!(!of(&mut limiter, "spent", "taken", 500) && of(&mut limiter, "site", "taken", 500));
        assert!(of(&mut limiter, "spent", "taken", 60_000));
        assert_eq!((0..5000).filter(|_| limiter.give_back("aa", at(0)).is_ok()).count(), 10);
        assert!(limiter.give_back("bb", at(0)).is_ok());
        assert!(limiter.give_back("aa", at(2000)).is_ok());
    }

    #[test]
    fn whoever_guesses_tokens_is_looked_at_no_more_and_others_are() {
        let mut limiter = RequestRateLimiter::default();
        let (guesser, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let guesses = (0..1000)
            .filter(|_| {
                let looked_at = limiter.may_show(guesser, at(0)).is_ok();
                if looked_at {
                    limiter.guessed(guesser, at(0));
                }
                looked_at
            })
            .count();
        assert_eq!(guesses, 30);
        assert!(limiter.may_show(other, at(0)).is_ok());
        assert!(limiter.may_show(guesser, at(4900)).is_err() && limiter.may_show(guesser, at(5100)).is_ok());
        // Another address of the same /64 is the same machine.
        let six = |last: &str| format!("2001:db8::{last}").parse::<IpAddr>().unwrap();
        (0..30).for_each(|_| limiter.guessed(six("1"), at(0)));
        assert!(limiter.may_show(six("2"), at(0)).is_err());
    }

    #[test]
    fn a_site_joins_at_once_and_ever_new_names_have_an_end() {
        let mut limiter = RequestRateLimiter::default();
        let joined = (0..50_000).filter(|id| limiter.join("site", &format!("n{id}"), at(0)).is_ok()).count();
        assert_eq!(joined, 1000);
        assert!(limiter.join("other", "edge-1", at(0)).is_ok());
        let later = (0..5000).filter(|id| limiter.join("site", &format!("m{id}"), at(1000)).is_ok()).count();
        assert_eq!(later, 100);
    }
}
