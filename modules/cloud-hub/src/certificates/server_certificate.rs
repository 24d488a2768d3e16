//! What CloudCore shows of its own CA, and where: made anew while it runs, and shown by handshakes from then on.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Env};
use pki::{Authorities, CurrentAuthorities, SubjectAltNames, Validity, validity_of};

use super::clock_doubt::{ClockDoubt, TimeSpan};
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
    doubt: ClockDoubt,
    places: Vec<(&'static str, Show)>,
    shown: Cell<Option<(SystemTime, Validity)>>,
    /// The one that is shown was dated while the clock was in doubt.
    is_dated_in_doubt: Cell<bool>,
    /// The CAs that were trusted when it was made, and are trusted where it is shown; none: it is not shown everywhere.
    by: RefCell<Vec<Vec<u8>>>,
}

impl ServerCertificate {
    /// One for `alt_names` that lives for `life`, dated by a clock about which there is `doubt`. Nothing is made yet.
    pub fn new(
        authorities: CurrentAuthorities,
        alt_names: SubjectAltNames,
        life: Duration,
        doubt: ClockDoubt,
    ) -> Self {
        let (places, shown, by) = (Vec::new(), Cell::default(), RefCell::default());
        let is_dated_in_doubt = Cell::default();
        ServerCertificate { authorities, alt_names, life, doubt, places, shown, is_dated_in_doubt, by }
    }

    /// It is shown there, too: `show` is handed each one that is made from now on.
    pub fn show_at(
        &mut self,
        place: &'static str,
        show: impl Fn(&ShownChain) -> Result<(), String> + 'static,
    ) {
        self.places.push((place, Box::new(show)));
    }

    /// A new one, by the CA that signs now. It is shown nowhere by that. While the clock is in doubt it begins with the clock that is behind and
    /// ends by the one that is ahead: nodes take it whichever is right, and learn no time from it that has not come.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn issue(&self, env: &Env) -> Result<ShownChain, SecretError> {
        let authorities = self.authorities.get();
        let signing = authorities.signing();
        let clock = env.clock();
        let TimeSpan { earliest, latest } = self.doubt.span(&*clock);
        let life = self.life.saturating_add(latest.duration_since(earliest).unwrap_or_default());
        let (issued, key) = signing.server(&self.alt_names, earliest, life, env.random_id())?;
        let part = env.random_below(1000) as f64 / 1000.0;
        let validity = validity_of(&issued.der)?;
        let is_in_doubt = self.doubt.is(&*clock);
        let renew_at = if is_in_doubt {
            // A life from now on by this machine's clock.
            let from = clock.wall().max(earliest);
            Validity { not_before: from, not_after: from + self.life }.renew_at(part)
        } else {
            validity.renew_at(part)
        };
        self.shown.set(Some((renew_at, validity)));
        self.is_dated_in_doubt.set(is_in_doubt);
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

    /// Whether it is time for a new one: it is old, was dated by a clock that is in doubt no more, others are trusted than when it was made, or
    /// it is not shown everywhere. A clock that was set does not make it wait for ever; one that stands before this program was made
    /// has it begin then, as the CA does.
    pub(crate) fn is_due(&self, clock: &dyn Clock) -> bool {
        let now = clock.wall().max(SystemTime::UNIX_EPOCH + Duration::from_secs(pki::MADE_AT_UNIX));
        if self.is_dated_in_doubt.get() && !self.doubt.is(clock) {
            return true;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pki::Authority;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::super::clock_doubt::tests::{DAY, SetClock, today};
    use super::*;

    /// The CA is a year old.
    fn made(doubt: &ClockDoubt) -> ServerCertificate {
        let authority = Authority::create(today() - 365 * DAY, [1; 16]).unwrap();
        let authorities = CurrentAuthorities::new(Authorities::of(authority));
        ServerCertificate::new(authorities, SubjectAltNames::default(), 30 * DAY, doubt.clone())
    }

    fn validity(chain: &ShownChain) -> Validity {
        validity_of(&CertificateDer::from_pem_slice(chain.chain.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn by_a_clock_in_doubt_it_is_good_by_both_clocks_and_begins_no_later_than_it_is() {
        for apart in [7, 21, 90] {
            for is_ahead in [true, false] {
                let true_time = today();
                let own = if is_ahead { true_time + apart * DAY } else { true_time - apart * DAY };
                let (clock, doubt) = (SetClock::at(own), ClockDoubt::default());
                let env = Env::seeded(3).with_clock(Arc::<SetClock>::clone(&clock));
                let server = made(&doubt);
                doubt.compared(&*clock, Some(true_time));
                let shown = validity(&server.issue(&env).unwrap());
                assert!(shown.not_before < true_time, "{apart} days, ahead: {is_ahead}");
                assert!(shown.holds(true_time) && shown.holds(own), "{apart} days, ahead: {is_ahead}");
                assert!(shown.holds(true_time + 29 * DAY));
                assert!(!server.is_due(&*clock), "not at each look");
                // The clock is set.
                clock.set(true_time, Duration::from_secs(60));
                assert!(server.is_due(&*clock), "it is dated anew");
                let shown = validity(&server.issue(&env).unwrap());
                assert_eq!(shown.not_after, true_time + 30 * DAY);
                assert!(!server.is_due(&*clock));
            }
        }
    }

    #[test]
    fn before_the_clock_was_compared_it_tells_nobody_the_time() {
        let (clock, doubt) = (SetClock::at(today() + 60 * DAY), ClockDoubt::default());
        let env = Env::seeded(3).with_clock(Arc::<SetClock>::clone(&clock));
        let shown = validity(&made(&doubt).issue(&env).unwrap());
        assert!(shown.not_before < today() - 99 * DAY && shown.holds(today()));
    }
}
