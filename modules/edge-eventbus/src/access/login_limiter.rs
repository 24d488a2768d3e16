//! Looks at passwords without letting whoever sends many take the processor.
//!
//! Hashes are slow on purpose, so one is computed at a time, beside the hive's thread, and the next one waits as long as
//! the last one took: together they take at most half of one router. Every source (an address, or a user of the Unix
//! socket) has a queue of its own and the queues take turns, so that a flood keeps nobody else waiting. A source that
//! was wrong ten times has to wait, half a second for each further time.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Env, Moment};
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::access::users::{PasswordCheck, PasswordHash};
use crate::packet::Password;
use crate::peer::PeerOrigin;

/// 64 passwords of one source wait: all devices behind one address that come back at once.
const WAITING: usize = 64;
/// 16 of a source that was wrong too often: the last of them is looked at within the deadline of a CONNECT.
const WAITING_LATE: usize = 16;
/// 128 passwords wait altogether.
const WAITING_ALL: usize = 128;
/// Ten wrong passwords of a source cost it nothing: an application with an old password is started a few times.
const FREE: u32 = 10;
/// 500 ms for each further one: two guesses a second.
const EACH: Duration = Duration::from_millis(500);
/// 1024 sources are remembered.
const SOURCES: usize = 1024;

/// Too many passwords wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyLogins;

/// The passwords of one source.
#[derive(Default)]
struct LoginSource {
    turn: Mutex<()>,
    waiting: Cell<usize>,
    /// When all of its wrong passwords are forgiven.
    forgiven: Cell<Option<Moment>>,
}

impl LoginSource {
    /// How long its next password has to wait.
    fn late(&self, now: Moment) -> Duration {
        self.forgiven.get().map_or(Duration::ZERO, |at| at.since(now)).saturating_sub(EACH * FREE)
    }

    fn wrong(&self, now: Moment) {
        let owed = self.forgiven.get().map_or(Duration::ZERO, |at| at.since(now));
        self.forgiven.set(Some(now + owed + EACH));
    }

    /// What was counted as wrong beforehand was right.
    fn right(&self, now: Moment) {
        let owed = self.forgiven.get().map_or(Duration::ZERO, |at| at.since(now));
        self.forgiven.set(Some(now + owed.saturating_sub(EACH)));
    }

    fn is_idle(&self, now: Moment) -> bool {
        self.waiting.get() == 0 && self.forgiven.get().is_none_or(|at| at.since(now).is_zero())
    }
}

/// See the module.
pub(crate) struct LoginLimiter {
    queues: RefCell<BTreeMap<PeerOrigin, Rc<LoginSource>>>,
    waiting: Rc<Cell<usize>>,
    hashing: Arc<Semaphore>,
}

impl Default for LoginLimiter {
    fn default() -> Self {
        let hashing = Arc::new(Semaphore::new(1));
        LoginLimiter { queues: RefCell::default(), waiting: Rc::default(), hashing }
    }
}

/// Counts one that waits, until it is dropped.
struct WaitingGuard {
    queue: Rc<LoginSource>,
    all: Rc<Cell<usize>>,
}

impl WaitingGuard {
    fn new(queue: &Rc<LoginSource>, all: &Rc<Cell<usize>>) -> Self {
        queue.waiting.set(queue.waiting.get() + 1);
        all.set(all.get() + 1);
        WaitingGuard { queue: Rc::clone(queue), all: Rc::clone(all) }
    }
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.queue.waiting.set(self.queue.waiting.get().saturating_sub(1));
        self.all.set(self.all.get().saturating_sub(1));
    }
}

impl LoginLimiter {
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Whose hash the password is, if it is right, in the turn of `source`.
    pub(crate) async fn verify(
        &self,
        env: &Env,
        source: PeerOrigin,
        check: PasswordCheck,
        password: Password,
    ) -> Result<Option<Arc<PasswordHash>>, TooManyLogins> {
        let queue = self.queue(source, env.now());
        let most = if queue.late(env.now()).is_zero() { WAITING } else { WAITING_LATE };
        if queue.waiting.get() >= most || self.waiting.get() >= WAITING_ALL {
            return Err(TooManyLogins);
        }
        let _counted = WaitingGuard::new(&queue, &self.waiting);
        let _turn = queue.turn.lock().await;
        let late = queue.late(env.now());
        if !late.is_zero() {
            env.sleep(late).await;
        }
        let hashing = Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| TooManyLogins)?;
        // Whoever leaves before the answer is told has guessed, too.
        queue.wrong(env.now());
        let (answer, told) = oneshot::channel();
        let beside = env.clone();
        // A task of its own, so that whoever leaves does not make room for another hash beside this one.
        env.spawn(async move {
            let began = beside.now();
            let auth_method = beside.blocking(move || check.proves(&password)).await;
            let took = beside.now().since(began);
            let _ = answer.send(auth_method);
            beside.sleep(took).await;
            drop(hashing);
        });
        let Ok(Ok(auth_method)) = told.await else { return Err(TooManyLogins) };
        if auth_method.is_some() {
            queue.right(env.now());
        }
        Ok(auth_method)
    }

    fn queue(&self, source: PeerOrigin, now: Moment) -> Rc<LoginSource> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() >= SOURCES {
            queues.retain(|_, queue| !queue.is_idle(now));
        }
        if queues.len() >= SOURCES
            && let Some(source) =
                queues.iter().filter(|(_, queue)| queue.waiting.get() == 0).map(|(source, _)| *source).next()
        {
            queues.remove(&source);
        }
        Rc::clone(queues.entry(source).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Users;
    use futures::future::{join, join_all};

    // PBKDF2 of one round, so that nothing is waited for but what the gate itself makes wait.
    const FILE: &str = "plc:$7$101$J+sztkJ5MvbqwC5W$UGUZDqcVOj4sK9We0X2dVki1YjbCX2KWfG8k7uys3qan7T1E9J2/7CiUlw6SfCrnclfB8oimzqeG7ra396WFKg==";

    fn run<F: Future<Output = ()>>(test: impl FnOnce(Env) -> F) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let env = Env::seeded(1).without_threads();
        tokio::task::LocalSet::new().block_on(&runtime, test(env));
    }

    fn check() -> PasswordCheck {
        Users::parse(FILE).unwrap().check("plc")
    }

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes())
    }

    #[test]
    fn guesses_are_slowed_down_and_the_right_password_of_another_source_is_not() {
        run(|env| async move {
            let login_limiter = LoginLimiter::default();
            let began = env.now();
            let guesses = async {
                for n in 0..30 {
                    let wrong = login_limiter
                        .verify(&env, PeerOrigin::Uid(1), check(), password(&n.to_string()))
                        .await;
                    assert_eq!(wrong, Ok(None));
                }
                env.now().since(began)
            };
            let good = async {
                for _ in 0..30 {
                    let right = login_limiter
                        .verify(&env, PeerOrigin::Uid(2), check(), password("s3cret pässword"))
                        .await;
                    assert!(matches!(right, Ok(Some(_))), "{right:?}");
                }
                env.now().since(began)
            };
            let (guesses, good) = join(guesses, good).await;
            assert!(guesses >= EACH * 19 && guesses < EACH * 21, "{guesses:?}");
            assert!(good < Duration::from_millis(100), "{good:?}");
            // Forgiven in time.
            env.sleep(EACH * 40).await;
            let began = env.now();
            assert_eq!(
                login_limiter.verify(&env, PeerOrigin::Uid(1), check(), password("x")).await,
                Ok(None)
            );
            assert!(env.now().since(began) < EACH);
        });
    }

    #[test]
    fn a_flood_is_turned_away_and_its_source_is_served_again_afterwards() {
        run(|env| async move {
            let login_limiter = LoginLimiter::default();
            let flood = join_all((0..1000).map(|n| {
                let (login_limiter, env) = (&login_limiter, &env);
                async move {
                    login_limiter.verify(env, PeerOrigin::Uid(1), check(), password(&n.to_string())).await
                }
            }));
            let other = login_limiter.verify(&env, PeerOrigin::Uid(2), check(), password("s3cret pässword"));
            let began = env.now();
            let other = async {
                let right = other.await;
                (right, env.now().since(began))
            };
            let (flood, (right, took)) = join(flood, other).await;
            assert!(matches!(right, Ok(Some(_))) && took < EACH, "{right:?} after {took:?}");
            assert_eq!(flood.iter().filter(|answer| **answer == Err(TooManyLogins)).count(), 1000 - WAITING);
            assert_eq!(login_limiter.waiting(), 0);
            // Late now: fewer may wait.
            let again = join_all(
                (0..20).map(|_| login_limiter.verify(&env, PeerOrigin::Uid(1), check(), password("x"))),
            )
            .await;
            assert_eq!(
                again.iter().filter(|answer| **answer == Err(TooManyLogins)).count(),
                20 - WAITING_LATE
            );
        });
    }

    #[test]
    fn whoever_leaves_early_has_guessed_and_makes_no_room() {
        run(|env| async move {
            let login_limiter = LoginLimiter::default();
            for _ in 0..FREE + 4 {
                let guess = login_limiter.verify(&env, PeerOrigin::Uid(1), check(), password("x"));
                let guess = std::pin::pin!(guess);
                let _ = futures::FutureExt::now_or_never(guess);
                env.sleep(Duration::from_millis(1)).await;
            }
            assert!(!login_limiter.queue(PeerOrigin::Uid(1), env.now()).late(env.now()).is_zero());
            assert_eq!(login_limiter.waiting(), 0);
        });
    }

    #[test]
    fn memory_of_sources_is_bounded() {
        run(|env| async move {
            let login_limiter = LoginLimiter::default();
            for uid in 0..3000 {
                let queue = login_limiter.queue(PeerOrigin::Uid(uid), env.now());
                queue.wrong(env.now());
            }
            assert!(login_limiter.queues.borrow().len() <= SOURCES);
        });
    }
}
