//! How one logs in: by a token in the request (WS-Security), or by HTTP, as the camera asks. Pure: time and chance come in.
//!
//! The clock of a camera decides whether a token is taken, and is often wrong: tokens carry the camera's own time. A camera that refuses
//! is tried with the other way once, and then left alone for a while, because many lock a user out after a few tries.

mod challenge;

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::xml::escape;

pub(crate) use challenge::{AuthScheme, Challenge};

/// 5 minutes: how long a camera is left alone that refuses whoever asks.
pub(crate) const LEFT_ALONE: Duration = Duration::from_secs(300);
/// A login that was good before, and is refused so often without one between, is good no more. Once may be of what was asked for.
const REFUSED_MAX: u32 = 3;

/// How one logs in, as a Device says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the camera asks: by a token, or by HTTP where it wants that.
    AsAsked,
    /// By WS-Security's `UsernameToken` alone.
    Token,
    /// By HTTP's digest alone.
    Digest,
}

/// What is asked: in SOAP a token can be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Soap,
    Get,
}

/// With what a request was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    kind: Kind,
    is_token: bool,
    /// The challenge that was answered.
    answered: Option<Challenge>,
}

/// What follows when a request was refused for its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is sent again with what there is now.
    Again,
    /// The camera's clock is read first.
    AfterItsClock,
    /// No.
    Stop(String),
}

/// What was tried for one request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    clock: bool,
    token: bool,
    challenges: u32,
}

/// What one connection was asked last: answers to one question are counted, and come in their order on one connection alone.
#[derive(Debug, Default)]
pub(crate) struct Question {
    challenge: Option<Challenge>,
    /// How often it was answered.
    count: u32,
}

/// The login at one camera.
pub(crate) struct Login {
    user: Option<(String, String)>,
    way: Way,
    /// The password may be sent in clear, where the camera asks for that.
    may_basic: bool,
    /// The camera's clock before ours.
    ahead: SignedDuration,
    /// It does not say what its clock is, or in words that are not read: what tokens have is a guess.
    is_clock_unknown: bool,
    /// SOAP is asked by HTTP's login, and without a token.
    is_http: bool,
    /// The camera has taken it.
    is_proved: bool,
    refused: u32,
    left_alone: Option<(Instant, String)>,
}

impl Login {
    pub(crate) fn new(user: Option<(String, String)>, way: Way, may_basic: bool) -> Self {
        Login {
            user,
            way,
            may_basic,
            ahead: SignedDuration::ZERO,
            is_clock_unknown: false,
            is_http: way == Way::Digest,
            is_proved: false,
            refused: 0,
            left_alone: None,
        }
    }

    /// The camera's clock says this now.
    pub(crate) fn clock(&mut self, its: Timestamp, ours: Timestamp) {
        self.ahead = its.duration_since(ours);
    }

    /// Whether the camera has said what its clock is, when it was asked.
    pub(crate) fn clock_was_said(&mut self, is_said: bool) {
        self.is_clock_unknown = !is_said;
    }

    /// Whether something may be sent at all.
    ///
    /// # Errors
    /// What the camera has said, while it is left alone.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        match &self.left_alone {
            Some((until, said)) if now < *until => Err(said.clone()),
            _ => Ok(()),
        }
    }

    /// What a request is sent with: the token for the header of its envelope, the header of HTTP, and what to remember of it.
    pub(crate) fn dress(
        &self,
        kind: Kind,
        question: &mut Question,
        (method, uri): (&str, &str),
        now: Timestamp,
        nonce: [u8; 16],
    ) -> (Option<String>, Option<String>, Sent) {
        let Some((user, password)) = &self.user else {
            return (None, None, Sent { kind, ..Sent::default() });
        };
        if kind == Kind::Soap && !self.is_http {
            let token = token(user, password, now.saturating_add(self.ahead).unwrap_or(now), nonce);
            return (Some(token), None, Sent { kind, is_token: true, answered: None });
        }
        let Some(challenge) = &question.challenge else {
            return (None, None, Sent { kind, ..Sent::default() });
        };
        question.count = question.count.saturating_add(1);
        let header = challenge.answer((user, password), (method, uri), question.count, &hex::encode(nonce));
        (None, Some(header), Sent { kind, is_token: false, answered: Some(challenge.clone()) })
    }

    /// The camera has done what only somebody may have done who is known.
    pub(crate) fn was_taken(&mut self, sent: &Sent) {
        if sent.is_token || sent.answered.is_some() {
            (self.is_proved, self.refused) = (true, 0);
        }
    }

    /// It has refused. `said` is in its own words.
    pub(crate) fn was_refused(
        &mut self,
        question: &mut Question,
        sent: &Sent,
        offers: &[AuthScheme],
        said: &str,
        tries: &mut Tries,
        now: Instant,
    ) -> Next {
        if self.user.is_none() {
            return self
                .stop(format!("it wants to know who asks ({said}); write `userName` and `password`"), now);
        }
        let offer = Challenge::best(offers, self.may_basic);
        let may_http = sent.kind == Kind::Get || self.way != Way::Token;
        if let Some(offer) = offer.filter(|_| may_http && tries.challenges < 2 && !tries.token) {
            // Another question after an answer is a no to the answer, unless it says that the first has grown old; one that was kept from
            // before may have grown old without a word.
            let is_no = sent.answered.as_ref().is_some_and(|answered| {
                !offer.is_stale && (tries.challenges > 0 || answered.is_same(&offer))
            });
            if !is_no {
                tries.challenges += 1;
                *question = Question { challenge: Some(offer), count: 0 };
                self.is_http = self.is_http || sent.kind == Kind::Soap;
                return Next::Again;
            }
        }
        if sent.is_token && !tries.clock {
            tries.clock = true;
            return Next::AfterItsClock;
        }
        if sent.kind == Kind::Soap && self.is_http && self.way == Way::AsAsked && !tries.token {
            (self.is_http, tries.token, tries.clock) = (false, true, true);
            return Next::AfterItsClock;
        }
        if offers.contains(&AuthScheme::Basic) && offer_is_only_basic(offers) && !self.may_basic {
            let said = "it wants the password in clear (HTTP Basic), which is not sent; write `allowBasic: true` where that is what you want";
            return self.stop(said.to_owned(), now);
        }
        self.refused += 1;
        if self.is_proved && self.refused < REFUSED_MAX {
            return Next::Stop(format!("{said}: may `userName` do this there?"));
        }
        let clock = match sent.is_token && self.is_clock_unknown {
            true => {
                ", or its clock is wrong, which it does not tell, and by which it judges who asks: set the camera's clock (NTP) to UTC's"
            }
            false => "",
        };
        self.stop(
            format!(
                "it refuses `userName` and `password` ({said}){clock}; it is asked again {} minutes later, since cameras lock users out",
                LEFT_ALONE.as_secs() / 60
            ),
            now,
        )
    }

    fn stop(&mut self, said: String, now: Instant) -> Next {
        self.left_alone = Some((now + LEFT_ALONE, said.clone()));
        Next::Stop(said)
    }
}

fn offer_is_only_basic(offers: &[AuthScheme]) -> bool {
    offers.iter().all(|offer| *offer == AuthScheme::Basic)
}

/// A `UsernameToken` with a digest (WS-Security UsernameToken Profile 1.1 §3.1).
fn token(user: &str, password: &str, created: Timestamp, nonce: [u8; 16]) -> String {
    let created = created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(&nonce);
    digest.update(created.as_bytes());
    digest.update(password.as_bytes());
    let digest = STANDARD.encode(digest.finish());
    let of = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss";
    format!(
        "<wsse:Security s:mustUnderstand=\"1\"><wsse:UsernameToken><wsse:Username>{}</wsse:Username>\
         <wsse:Password Type=\"{of}-username-token-profile-1.0#PasswordDigest\">{digest}</wsse:Password>\
         <wsse:Nonce EncodingType=\"{of}-soap-message-security-1.0#Base64Binary\">{}</wsse:Nonce>\
         <wsu:Created>{created}</wsu:Created></wsse:UsernameToken></wsse:Security>",
        escape(user),
        STANDARD.encode(nonce)
    )
}

#[cfg(test)]
mod tests;
