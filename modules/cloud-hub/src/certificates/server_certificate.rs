//! What CloudCore shows of its own CA, and where: made anew while it runs, and shown by handshakes from then on.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use beehive::Env;
use pki::{Authorities, CurrentAuthorities, SubjectAltNames, Validity, validity_of};

use crate::error::SecretError;

/// A certificate with everything that is shown with it. All PEM.
#[derive(Clone)]
pub struct ShownChain {
    /// The certificate, and what leads from it to each CA that is trusted.
    pub chain: String,
    /// Its key.
    pub key: String,
    /// The CAs whose certificates clients may show.
    pub authorities: String,
}

/// Shows a chain from now on; a sentence where that cannot be.
type Show = Box<dyn Fn(&ShownChain) -> Result<(), String>>;

/// The certificate, and where it is shown.
pub struct ServerCertificate {
    authorities: CurrentAuthorities,
    alt_names: SubjectAltNames,
    life: Duration,
    places: Vec<(&'static str, Show)>,
    shown: Cell<Option<(SystemTime, Validity)>>,
    /// The CAs that were trusted when it was made, and are trusted where it is shown; none: it is not shown everywhere.
    by: RefCell<Vec<Vec<u8>>>,
}

impl ServerCertificate {
    /// One for `alt_names` that lives for `life`. Nothing is made yet.
    pub fn new(authorities: CurrentAuthorities, alt_names: SubjectAltNames, life: Duration) -> Self {
        let (places, shown, by) = (Vec::new(), Cell::default(), RefCell::default());
        ServerCertificate { authorities, alt_names, life, places, shown, by }
    }

    /// It is shown there, too: `show` is handed each one that is made from now on.
    pub fn show_at(
        &mut self,
        place: &'static str,
        show: impl Fn(&ShownChain) -> Result<(), String> + 'static,
    ) {
        self.places.push((place, Box::new(show)));
    }

    /// A new one, by the CA that signs now. It is shown nowhere by that.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn issue(&self, env: &Env) -> Result<ShownChain, SecretError> {
        let authorities = self.authorities.get();
        let signing = authorities.signing();
        let (issued, key) = signing.server(&self.alt_names, env.wall(), self.life, env.random_id())?;
        let part = env.random_below(1000) as f64 / 1000.0;
        let validity = validity_of(&issued.der)?;
        self.shown.set(Some((validity.renew_at(part), validity)));
        self.by.replace(authorities.trusted());
        Ok(shown(&authorities, &issued.pem, key))
    }

    /// Makes a new one and shows it everywhere. A place that does not take it keeps the one before, and is named; another one is due then.
    ///
    /// # Errors
    /// See [`ServerCertificate::issue`].
    pub(crate) fn renew(&self, env: &Env) -> Result<Vec<(&'static str, String)>, SecretError> {
        let chain = self.issue(env)?;
        let failed = self.places.iter().filter_map(|(place, show)| Some((*place, show(&chain).err()?)));
        let failed: Vec<_> = failed.collect();
        if !failed.is_empty() {
            self.by.borrow_mut().clear();
        }
        Ok(failed)
    }

    /// Whether it is time for a new one: it is old, others are trusted than when it was made, or it is not shown everywhere. A clock that was set does not make it wait for ever; one that stands before this program was made
    /// has it begin then, as the CA does.
    pub(crate) fn is_due(&self, now: SystemTime) -> bool {
        let now = now.max(SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX));
        let is_old =
            |(renew_at, validity): (SystemTime, Validity)| now >= renew_at || now < validity.not_before;
        self.shown.get().is_none_or(is_old) || *self.by.borrow() != self.authorities.get().trusted()
    }

    /// When the one that is shown ends.
    pub(crate) fn not_after(&self) -> Option<SystemTime> {
        self.shown.get().map(|(_, validity)| validity.not_after)
    }

    /// How long one lives.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }
}

fn shown(authorities: &Authorities, certificate: &str, key: String) -> ShownChain {
    ShownChain { chain: authorities.chain(certificate), key, authorities: authorities.bundle() }
}
