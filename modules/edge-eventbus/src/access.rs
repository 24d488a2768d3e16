//! Who gets in, and as whom.

mod absent;
mod acl;
mod files;
mod login_limiter;
mod users;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use beehive::Env;

use crate::identity;
use crate::packet::{ConnectCode, Password};
use crate::peer::Peer;
use crate::{place, plan};

pub(crate) use absent::{Proof, Verdict};
pub(crate) use acl::{Acl, Rights};
pub(crate) use files::{Content, Files, content};
pub(crate) use login_limiter::LoginLimiter;
pub(crate) use users::{PasswordHash, Users};

pub use users::line;

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDefect {
    /// From 1 on; 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl FileDefect {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        FileDefect { line, what: what.into() }
    }
}

/// What proves that a client is whom it says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum AuthMethod {
    /// Nothing: it is anonymous.
    #[default]
    None,
    /// A password, by this hash.
    Password(Arc<PasswordHash>),
    /// A certificate.
    Certificate,
    /// A password, before the daemon started; the client has not come since.
    Restored,
}

/// A client that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) auth_method: AuthMethod,
}

impl Login {
    fn anonymous() -> Self {
        Login { user: None, auth_method: AuthMethod::None }
    }
}

/// What decides about logins.
pub(crate) struct Access {
    allow_anonymous: bool,
    password_file: Option<PathBuf>,
    acl_file: Option<PathBuf>,
    /// Whether `acl_file` has been understood.
    pub(crate) knows_acl: Cell<bool>,
    /// Whether there is a listener that wants no certificate of a client.
    has_open_place: bool,
    /// Whether there is one that asks for it.
    has_certified_place: bool,
    /// `None` while the file has never been understood: then nobody logs in by password.
    users: RefCell<Option<Rc<Users>>>,
    login_limiter: LoginLimiter,
    /// What is wrong with files, by their keys.
    pub(crate) problems: RefCell<BTreeMap<&'static str, String>>,
}

impl Access {
    pub(crate) fn new(config: &config::edge::EventBus) -> Self {
        let set = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
        Access {
            allow_anonymous: config.allow_anonymous,
            password_file: set(&config.password_file),
            acl_file: set(&config.acl_file),
            knows_acl: Cell::new(false),
            has_open_place: place::of(config).iter().any(|place| !place.wants_certificates(&config.tls)),
            has_certified_place: place::of(config).iter().any(|place| place.wants_certificates(&config.tls)),
            users: RefCell::default(),
            login_limiter: LoginLimiter::default(),
            problems: RefCell::default(),
        }
    }

    /// What holds before the file has been read.
    pub(crate) fn first_acl(&self) -> Acl {
        if self.acl_file.is_some() { Acl::closed() } else { Acl::KubeEdge }
    }

    pub(crate) fn set_users(&self, users: Users) {
        self.users.replace(Some(Rc::new(users)));
    }

    /// Users that log in by password.
    pub(crate) fn users(&self) -> usize {
        self.users.borrow().as_ref().map_or(0, |users| users.len())
    }

    /// Passwords that wait to be looked at.
    pub(crate) fn waiting(&self) -> usize {
        self.login_limiter.waiting()
    }

    /// Whom a CONNECT comes from, or the code of its refusal.
    ///
    /// A certificate says it, whatever the CONNECT says. A user name is to be proved where there are users; where there is
    /// no password file it proves nothing, so that its client is an anonymous one.
    pub(crate) async fn login(
        &self,
        env: &Env,
        peer: &Peer,
        user: Option<String>,
        password: Option<Password>,
    ) -> Result<Login, ConnectCode> {
        if let Some(certified) = &peer.certified {
            return Ok(Login { user: Some(certified.user.clone()), auth_method: AuthMethod::Certificate });
        }
        match user {
            Some(user) if self.password_file.is_some() => {
                let hash = self.prove(env, peer, &user, password).await?;
                Ok(Login { user: Some(user), auth_method: AuthMethod::Password(hash) })
            }
            _ if self.allow_anonymous => Ok(Login::anonymous()),
            _ => Err(ConnectCode::NotAuthorized),
        }
    }

    async fn prove(
        &self,
        env: &Env,
        peer: &Peer,
        user: &str,
        password: Option<Password>,
    ) -> Result<Arc<PasswordHash>, ConnectCode> {
        let users = self.users.borrow().clone().ok_or(ConnectCode::ServerUnavailable)?;
        // None of these says anything about the users that there are.
        let fits = |password: &Password| (1..=plan::PASSWORD_BYTES).contains(&password.bytes().len());
        let password = password.filter(fits).ok_or(ConnectCode::BadUserNameOrPassword)?;
        if identity::user_defect(user).is_some() {
            return Err(ConnectCode::BadUserNameOrPassword);
        }
        let auth_method = self.login_limiter.verify(env, peer.source, users.check(user), password).await;
        let hash = auth_method.map_err(|login_limiter::TooManyLogins| ConnectCode::ServerUnavailable)?;
        let hash = hash.ok_or(ConnectCode::BadUserNameOrPassword)?;
        // The file may have changed meanwhile.
        if self.still(user, &hash) { Ok(hash) } else { Err(ConnectCode::BadUserNameOrPassword) }
    }

    /// Whether a password that was right is so still.
    pub(crate) fn still(&self, user: &str, hash: &Arc<PasswordHash>) -> bool {
        self.users.borrow().as_ref().is_some_and(|users| users.hash(user) == Some(hash))
    }

    /// Whether there is such a user.
    pub(crate) fn knows(&self, user: &str) -> bool {
        self.users.borrow().as_ref().is_some_and(|users| users.hash(user).is_some())
    }
}
