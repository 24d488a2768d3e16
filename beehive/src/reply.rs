//! The way back of an ask.

use tokio::sync::oneshot;

use crate::AskError;

/// The one-time way back to whoever asked. Dropping it tells the asker [`AskError::Crashed`].
pub struct Reply<T>(Target<T>);

enum Target<T> {
    Local(oneshot::Sender<Result<T, AskError>>),
    /// The asker is at the other end of a link; dropping the closure tells it that the actor crashed.
    Remote(Box<dyn FnOnce(Result<T, AskError>) + Send>),
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}

impl<T> Reply<T> {
    /// A reply and the place where it arrives.
    pub fn channel() -> (Reply<T>, oneshot::Receiver<Result<T, AskError>>) {
        let (tx, rx) = oneshot::channel();
        (Reply(Target::Local(tx)), rx)
    }

    /// A reply that hands the answer to `carry`, for askers at the other end of a link.
    pub fn carried(carry: impl FnOnce(Result<T, AskError>) + Send + 'static) -> Reply<T> {
        Reply(Target::Remote(Box::new(carry)))
    }

    /// Answers. An asker that has given up is no error.
    pub fn send(self, value: T) {
        self.finish(Ok(value));
    }

    /// Tells the asker why there is no answer.
    pub fn fail(self, why: AskError) {
        self.finish(Err(why));
    }

    fn finish(self, answer: Result<T, AskError>) {
        match self.0 {
            Target::Local(tx) => drop(tx.send(answer)),
            Target::Remote(carry) => carry(answer),
        }
    }

    /// Whether the asker is known to have given up, so that the work can be saved.
    pub fn is_abandoned(&self) -> bool {
        match &self.0 {
            Target::Local(tx) => tx.is_closed(),
            Target::Remote(_) => false,
        }
    }

    /// Resolves when the asker is known to have given up; never, of one at the other end of a link.
    pub async fn abandoned(&mut self) {
        match &mut self.0 {
            Target::Local(tx) => tx.closed().await,
            Target::Remote(_) => std::future::pending().await,
        }
    }
}
