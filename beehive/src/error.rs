//! Why a message was not taken, why an ask was not answered, why an actor gave up.

use thiserror::Error;

/// Why a mailbox did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The mailbox holds as many messages as it may.
    #[error("mailbox is full")]
    Full,
    /// The actor has been stopped for good.
    #[error("mailbox is closed")]
    Closed,
    /// The mailbox is on another host and the link to it is down.
    #[error("link is down")]
    LinkDown,
    /// The message is larger than a frame may be.
    #[error("message is too large for a frame")]
    TooLarge,
    /// The end on the other host is of a release that does not understand the message.
    #[error("peer does not understand this message")]
    Unsupported,
    /// The address was granted for `try_tell` only, or for waiting in spawned tasks only.
    #[error("waiting for room over this address was not declared in the topology")]
    Undeclared,
}

/// Why an ask was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AskError {
    /// The message was not taken.
    #[error("not delivered")]
    Refused(#[source] Refusal),
    /// No reply came before the deadline. The message may still be handled.
    #[error("no reply before the deadline")]
    Deadline,
    /// The actor died or dropped the reply while it handled the message.
    #[error("actor crashed while it handled the message")]
    Crashed,
    /// The link went down after the message left. It may have been handled.
    #[error("link went down before the reply came")]
    LinkDown,
    /// The peer refused the message: no such mailbox, not allowed, or not understood.
    #[error("peer refused the message: {0}")]
    Rejected(String),
    /// The address was granted for telling only.
    #[error("asking over this address was not declared in the topology")]
    Undeclared,
}

impl From<Refusal> for AskError {
    fn from(why: Refusal) -> Self {
        AskError::Refused(why)
    }
}

/// Why an actor cannot go on: its supervisor starts a new one, or gives up by the policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Fault {
    /// What went wrong, for a person.
    pub reason: String,
}

impl Fault {
    /// A fault with the whole chain of causes of `error`. A cause that is said by the words before it, as libraries do that put the
    /// cause into their own sentence, is not said again.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let said = inner.to_string();
            if !reason.contains(&said) {
                reason.push_str(": ");
                reason.push_str(&said);
            }
            cause = inner.source();
        }
        Fault { reason }
    }

    /// A fault of `who`, which has panicked.
    pub(crate) fn of_panic(who: &str, panic: &(dyn std::any::Any + Send)) -> Self {
        let text =
            panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        Fault { reason: format!("{who}panicked: {}", text.unwrap_or("without a message")) }
    }

    /// A fault described by a sentence.
    pub fn new(reason: impl Into<String>) -> Self {
        Fault { reason: reason.into() }
    }
}

/// What is wrong with the wiring of a hive.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WiringError {
    /// Two mailboxes have one name.
    #[error("two mailboxes are named `{0}`")]
    Duplicate(String),
    /// A mailbox was made but nobody supervises it.
    #[error("mailbox `{0}` has no actor")]
    NoActor(String),
    /// Tells or asks go round in a circle, so that actors could wait for each other for ever.
    #[error("these actors could wait for each other: {}", .0.join(" -> "))]
    Circle(Vec<String>),
    /// There is no mailbox of that name and message.
    #[error("no mailbox of that message is named `{0}`")]
    NoMailbox(String),
    /// The machine gives no thread for the watchdog.
    #[error("no thread for the watchdog: {0}")]
    NoWatchdog(String),
    /// Somebody looks on at the mailbox already.
    #[error("mailbox `{0}` is tapped already")]
    Tapped(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("{words}")]
    struct Layer {
        words: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn no_cause_is_said_twice() {
        let over = |words, source: Layer| Layer { words, source: Some(Box::new(source)) };
        let file = || Layer { words: "no such file", source: None };
        let reason = |error: &Layer| Fault::from_error(error).reason;
        assert_eq!(reason(&over("cannot read a", file())), "cannot read a: no such file");
        assert_eq!(reason(&over("no such file", file())), "no such file");
        let doubled = over("cannot use a", over("failed to read: no such file", file()));
        assert_eq!(reason(&doubled), "cannot use a: failed to read: no such file");
    }
}
