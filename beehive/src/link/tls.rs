//! TLS of every transport that is not in memory: verified both ways, version 1.3, one authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::credentials::provider;
pub use super::credentials::{Credentials, EndpointError, LiveCredentials, PrivateKey};
use super::transport::PeerName;
use crate::{Clock, TokioClock};

/// The accepting end: a client without a certificate of the authority gets nowhere.
///
/// # Errors
/// See [`EndpointError`].
pub fn server(credentials: &Credentials, protocol: &[u8]) -> Result<ServerConfig, EndpointError> {
    server_by(&LiveCredentials::new(credentials)?, protocol)
}

/// The same, by credentials that may change.
///
/// # Errors
/// See [`EndpointError`].
pub fn server_by(credentials: &LiveCredentials, protocol: &[u8]) -> Result<ServerConfig, EndpointError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(EndpointError::Tls)?
        .with_client_cert_verifier(Arc::new(ClientVerifier(credentials.clone())))
        .with_cert_resolver(Arc::new(credentials.clone()));
    config.alpn_protocols = vec![protocol.to_vec()];
    // No session is resumed: what is kept for that holds the whole chain that a client has shown, up to 64 KiB, and a
    // certificate that has ended meanwhile would not be looked at again.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// Verifies as rustls does, by the authorities of now, at [`time_to_check_client_by`].
#[derive(Debug)]
struct ClientVerifier(LiveCredentials);

/// The moment at which an accepting end checks the certificate that a client shows: that of its clock (or [`LiveCredentials::judging_by`]), but
///
/// * not before its `own` certificate began, nor before the one that is shown: a machine whose clock stands at 1970 would else refuse every
///   client, and one that was signed by a clock which was ahead would be good for nothing when that is set. A clock that is ahead is
///   believed: this end may shut out, and never let in what has ended;
/// * for a certificate that ended at most `ended_for` before, the moment of its end. Whoever takes the connection is told.
fn time_to_check_client_by(
    now: UnixTime,
    own: Option<&CertificateDer<'_>>,
    shown: &CertificateDer<'_>,
    ended_for: Duration,
) -> UnixTime {
    let began = own.and_then(|own| Some(validity(own)?.0)).unwrap_or_default();
    let shown = validity(shown);
    let at = now.as_secs().max(began).max(shown.map_or(0, |(from, _)| from));
    let ended = shown.map(|(_, end)| end).filter(|end| at.saturating_sub(*end) <= ended_for.as_secs());
    UnixTime::since_unix_epoch(Duration::from_secs(ended.map_or(at, |end| at.min(end))))
}

impl ClientCertVerifier for ClientVerifier {
    /// None: the authorities change, and whoever dials has one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let material = self.0.now();
        let now = self.0.judged_by().map_or(now, unix);
        let at = time_to_check_client_by(now, material.own(), leaf, self.0.ended_for());
        material.clients.verify_client_cert(leaf, chain, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.now().clients.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.now().clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.now().clients.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.0.now().clients.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.now().clients.client_auth_mandatory()
    }
}

/// The dialling end, by the machine's clock.
///
/// # Errors
/// See [`EndpointError`].
pub fn client(credentials: &Credentials, protocol: &[u8]) -> Result<ClientConfig, EndpointError> {
    client_by(&LiveCredentials::new(credentials)?, protocol, Arc::new(TokioClock::real()))
}

/// The dialling end. Each certificate that it accepts teaches `clock` a moment that has passed: when it began, or this end's own did.
///
/// # Errors
/// See [`EndpointError`].
pub fn client_by(
    credentials: &LiveCredentials,
    protocol: &[u8],
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, EndpointError> {
    let verifier = Arc::new(ByKnownTime { credentials: credentials.clone(), clock: ClockOf(clock) });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(EndpointError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(credentials.clone()));
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Verifies as rustls does, at a moment that a clock which is years off does not decide: see [`time_to_check_by`].
#[derive(Debug)]
struct ByKnownTime {
    credentials: LiveCredentials,
    clock: ClockOf,
}

/// The clock of one end.
struct ClockOf(Arc<dyn Clock>);

impl std::fmt::Debug for ClockOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("clock")
    }
}

impl ServerCertVerifier for ByKnownTime {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (now, earliest) = (unix(self.clock.0.wall()), unix(self.clock.0.earliest()));
        let material = self.credentials.now();
        let known = now.as_secs().max(earliest.as_secs());
        let at = match material.own() {
            Some(own) => time_to_check_by(now, earliest, own, leaf),
            None => UnixTime::since_unix_epoch(Duration::from_secs(known)),
        };
        let verified = material.servers.verify_server_cert(leaf, chain, name, ocsp, at)?;
        if let Some(passed) = has_passed(known, material.own(), leaf) {
            self.clock.0.learn(SystemTime::UNIX_EPOCH + Duration::from_secs(passed));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.credentials.now().servers.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.credentials.now().servers.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.credentials.now().servers.supported_verify_schemes()
    }
}

/// A wall time as TLS has it; before 1970 it is 1970.
fn unix(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// The moment at which to check the certificate that the other end `shown`: that of the clock, which says `now`, but not
/// before the `earliest` that it can be, if a certificate that this end `held` before is valid then.
///
/// A box without a battery boots in 1970, and one whose clock is decades ahead is as common. Whoever holds a certificate
/// knows that it is at least as late as when that was signed: a clock that contradicts it is no judge. The latest
/// beginning of both certificates is taken instead, or the earliest moment that is known of if that is later, so that one
/// which had ended before is still refused.
///
/// One that begins later than a clock says which is believed passes as well: an authority dates nothing in advance, so
/// that clock is behind, or the other end's was ahead.
pub fn time_to_check_by(
    now: UnixTime,
    earliest: UnixTime,
    held: &CertificateDer<'_>,
    shown: &CertificateDer<'_>,
) -> UnixTime {
    let at_the_earliest =
        |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(earliest.as_secs())));
    let (Some((held_from, _)), Some((shown_from, _))) = (validity(held), validity(shown)) else {
        return at_the_earliest(now.as_secs());
    };
    if is_within(held, now.as_secs().max(earliest.as_secs())) {
        return at_the_earliest(now.as_secs().max(shown_from));
    }
    tracing::warn!(
        clock = now.as_secs(),
        "the clock is outside the life of this end's certificate and is not believed: that has ended, or the clock is to be set"
    );
    at_the_earliest(held_from.max(shown_from))
}

/// What is proven to have passed when a certificate that the other end has `shown` was accepted, in seconds since 1970: the later beginning of
/// both ends' certificates, but no more than a clock says that is believed, since the other end's may have been ahead.
///
/// What the clock says beyond that is no proof: one that was ahead for an hour, within the life of this end's certificate, would be known for ever.
fn has_passed(known: u64, held: Option<&CertificateDer<'_>>, shown: &CertificateDer<'_>) -> Option<u64> {
    let (shown_from, _) = validity(shown)?;
    let held_from = held.and_then(|held| validity(held)).map_or(0, |(from, _)| from);
    let proven = held_from.max(shown_from);
    let is_believed = held.is_none_or(|held| is_within(held, known));
    Some(if is_believed { proven.min(known) } else { proven })
}

/// Whether a moment, in seconds since 1970, is in the life of a certificate.
fn is_within(certificate: &CertificateDer<'_>, second: u64) -> bool {
    validity(certificate).is_some_and(|(from, to)| (from..=to).contains(&second))
}

/// When a certificate begins and ends, in seconds since 1970.
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Some((seconds(validity.not_before), seconds(validity.not_after)))
}

/// Who a certificate (DER) that TLS has verified is of: the common name of its subject, its serial number, and when it ends. `None`
/// when it has no common name.
pub fn peer_of(der: &[u8]) -> Option<PeerName> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let serial: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let begins = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    Some(PeerName::verified(name, serial).valid(begins, ends))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::credentials::certificates;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
    };

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn ca() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2075, 1, 1));
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn of(ca: &Ca, from: i32, to: i32) -> (String, String) {
        of_dates(ca, (from, 1, 1), (to, 1, 1))
    }

    /// From one year, month and day to another.
    fn of_dates(ca: &Ca, from: (i32, u8, u8), to: (i32, u8, u8)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
    }

    fn of_client(ca: &Ca, from: i32, to: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
    }

    fn year(year: u64) -> UnixTime {
        // Mid-year; a year of 365.25 days is near enough.
        UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_557_600 + 15_000_000))
    }

    /// Whether an end that holds a certificate of 2026 takes a server's, when its clock says `now`.
    fn takes(now: u64, server_from: i32, server_to: i32) -> bool {
        takes_knowing(now, 1970, server_from, server_to)
    }

    /// A clock that knows that it is mid-`earliest` or later, and notes what it learns.
    struct Knowing {
        now: std::sync::Mutex<UnixTime>,
        earliest: std::sync::Mutex<SystemTime>,
    }

    impl Knowing {
        /// So much time passes, and somebody sets what people read on it.
        fn pass(&self, passed: Duration, now: UnixTime) {
            *self.earliest.lock().unwrap() += passed;
            *self.now.lock().unwrap() = now;
        }
    }

    impl Clock for Knowing {
        fn now(&self) -> crate::Moment {
            crate::Moment::default()
        }
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.now.lock().unwrap().as_secs())
        }
        fn sleep(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
        fn earliest(&self) -> SystemTime {
            *self.earliest.lock().unwrap()
        }
        fn learn(&self, at: SystemTime) {
            let mut earliest = self.earliest.lock().unwrap();
            *earliest = at.max(*earliest);
        }
    }

    fn knowing(now: u64, earliest: u64) -> Arc<Knowing> {
        let earliest = SystemTime::UNIX_EPOCH + Duration::from_secs(year(earliest).as_secs());
        Arc::new(Knowing { now: std::sync::Mutex::new(year(now)), earliest: std::sync::Mutex::new(earliest) })
    }

    /// The same, when it is known that it is `earliest` or later.
    fn takes_knowing(now: u64, earliest: u64, server_from: i32, server_to: i32) -> bool {
        takes_by(&knowing(now, earliest), server_from, server_to)
    }

    fn takes_by(clock: &Arc<Knowing>, server_from: i32, server_to: i32) -> bool {
        takes_with(clock, (2026, 2027), (server_from, server_to))
    }

    /// The same, when it holds a certificate of `own`.
    fn takes_with(clock: &Arc<Knowing>, own: (i32, i32), server: (i32, i32)) -> bool {
        let ca = ca();
        let (own, key) = of(&ca, own.0, own.1);
        let own = Credentials { certificate: own, key: key.into(), authority: ca.pem() };
        takes_shown(clock, &own, &of(&ca, server.0, server.1).0)
    }

    fn takes_shown(clock: &Arc<Knowing>, own: &Credentials, server: &str) -> bool {
        let credentials = LiveCredentials::new(own).unwrap();
        let clock = ClockOf(Arc::clone(clock) as Arc<dyn Clock>);
        let verifier = ByKnownTime { credentials, clock };
        let server = certificates(server).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        // rustls' own time counts for nothing.
        verifier.verify_server_cert(&server[0], &[], &name, &[], year(2000)).is_ok()
    }

    #[test]
    fn a_server_in_1970_knows_that_it_is_not_before_its_own_certificate() {
        let ca = ca();
        let takes = |now: u64, from: i32, to: i32| {
            let (own, key) = of(&ca, 2026, 2036);
            let own = Credentials { certificate: own, key: key.into(), authority: ca.pem() };
            let verifier = ClientVerifier(LiveCredentials::new(&own).unwrap());
            let (client, _) = of_client(&ca, from, to);
            let client = certificates(&client).unwrap();
            verifier.verify_client_cert(&client[0], &[], year(now)).is_ok()
        };
        assert!(takes(1970, 2025, 2027) && takes(2026, 2025, 2027));
        assert!(!takes(1970, 2020, 2025), "it had ended before the server's own began");
        assert!(!takes(2028, 2025, 2027), "it has ended");
    }

    #[test]
    fn a_certificate_that_has_ended_passes_only_where_it_is_let_and_not_for_longer() {
        const YEAR: u64 = 31_557_600;
        let (ca, other) = (ca(), self::ca());
        let (own, key) = of(&ca, 2020, 2060);
        let own =
            LiveCredentials::new(&Credentials { certificate: own, key: key.into(), authority: ca.pem() })
                .unwrap();
        let takes = |by: &Ca, let_for: u64, now: u64| {
            let verifier = ClientVerifier(own.clone().letting_ended(Duration::from_secs(let_for)));
            let client = certificates(&of_client(by, 2025, 2027).0).unwrap();
            verifier.verify_client_cert(&client[0], &[], year(now)).is_ok()
        };
        assert!(takes(&ca, 0, 2026) && !takes(&ca, 0, 2027));
        assert!(takes(&ca, YEAR, 2027), "ended half a year ago");
        assert!(!takes(&ca, YEAR, 2028), "ended a year and a half ago");
        assert!(!takes(&other, YEAR, 2027), "of another authority");
        assert!(takes(&ca, 0, 2024), "it was signed by a clock that was ahead");
        let ended = certificates(&of_client(&ca, 2025, 2027).0).unwrap();
        let (_, ends) = peer_of(&ended[0]).unwrap().validity_unix().unwrap();
        assert!(ends < year(2027).as_secs(), "whoever takes the connection is told");
    }

    #[test]
    fn an_accepting_end_may_judge_by_another_time_than_the_machines_clock() {
        let ca = ca();
        let (own, key) = of(&ca, 2020, 2060);
        let own =
            LiveCredentials::new(&Credentials { certificate: own, key: key.into(), authority: ca.pem() })
                .unwrap();
        let takes = |judged: u64| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(year(judged).as_secs());
            let verifier = ClientVerifier(own.clone().judging_by(move || at));
            let client = certificates(&of_client(&ca, 2025, 2027).0).unwrap();
            verifier.verify_client_cert(&client[0], &[], year(2030)).is_ok()
        };
        assert!(takes(2026), "the clock is years ahead");
        assert!(!takes(2028), "it has ended by the other time as well");
    }

    #[test]
    fn what_is_shown_and_who_is_trusted_change_while_it_runs() {
        let (first, second) = (ca(), self::ca());
        let of_both = |by: &Ca, trusted: &[&Ca]| {
            let (certificate, key) = of(by, 2020, 2060);
            let authority = trusted.iter().map(|ca| ca.pem()).collect();
            Credentials { certificate, key: key.into(), authority }
        };
        let live = LiveCredentials::new(&of_both(&first, &[&first])).unwrap();
        let verifier = ClientVerifier(live.clone());
        let takes = |by: &Ca| {
            let client = certificates(&of_client(by, 2025, 2027).0).unwrap();
            verifier.verify_client_cert(&client[0], &[], year(2026)).is_ok()
        };
        let shown = live.now().own().unwrap().clone();
        assert!(takes(&first) && !takes(&second));
        live.replace(&of_both(&second, &[&first, &second])).unwrap();
        assert!(takes(&first) && takes(&second) && *live.now().own().unwrap() != shown);
        let (other, _) = of(&first, 2020, 2060);
        let broken = Credentials { certificate: other, ..of_both(&second, &[&second]) };
        assert!(live.replace(&broken).is_err(), "a certificate of another key");
        assert!(takes(&first), "what was there stays");
        live.replace(&of_both(&second, &[&second])).unwrap();
        assert!(!takes(&first) && takes(&second));
    }

    #[test]
    fn what_is_known_to_have_passed_holds_against_a_clock_in_1970() {
        // By the clock alone one that ended in 2028 would pass: this end's own certificate is of 2026.
        assert!(takes_knowing(1970, 1970, 2025, 2028));
        assert!(!takes_knowing(1970, 2029, 2025, 2028), "it ended before the last known time");
        assert!(takes_knowing(1970, 2029, 2028, 2038), "one that is valid is taken");
        assert!(takes_knowing(1970, 2026, 2026, 2036) && takes_knowing(2026, 2026, 2026, 2036));
        assert!(!takes_knowing(2060, 2029, 2025, 2028), "a clock that is ahead changes nothing");
        assert!(takes_knowing(2060, 2029, 2028, 2038));
    }

    #[test]
    fn a_certificate_that_was_accepted_teaches_what_has_passed_and_one_that_was_not_teaches_nothing() {
        let at = |year_of: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(year(year_of).as_secs());
        let clock = knowing(1970, 1970);
        assert!(takes_by(&clock, 2030, 2040));
        assert!(
            clock.earliest() > at(2029) && clock.earliest() < at(2030),
            "signed at the beginning of 2030"
        );
        assert!(!takes_by(&clock, 2025, 2028), "one that had ended by then");
        let clock = knowing(2060, 1970);
        assert!(takes_by(&clock, 2026, 2036));
        assert!(clock.earliest() < at(2027), "a clock that is not believed teaches nothing");
        let clock = knowing(2026, 1970);
        assert!(takes_by(&clock, 2027, 2037), "signed by a clock that is ahead of this one");
        assert_eq!(clock.earliest(), at(2026), "which of both is right is not known");
    }

    #[test]
    fn a_clock_that_was_ahead_within_the_lives_of_both_certificates_shuts_nobody_out_when_it_is_right_again()
    {
        const DAY: Duration = Duration::from_secs(86_400);
        // 2026-01-01.
        let begin = Duration::from_secs(1_767_225_600);
        let on = |day: u32| UnixTime::since_unix_epoch(begin + DAY * day);
        let ca = ca();
        let month = || of_dates(&ca, (2026, 1, 1), (2026, 1, 31));
        let ((certificate, key), (server, _)) = (month(), month());
        let own = Credentials { certificate, key: key.into(), authority: ca.pem() };
        let clock = knowing(1970, 1970);
        clock.pass(Duration::ZERO, on(25));
        assert!(takes_shown(&clock, &own, &server), "both are good by it");
        assert_eq!(clock.earliest(), SystemTime::UNIX_EPOCH + begin, "what has certainly passed");
        clock.pass(6 * DAY, on(6));
        assert!(takes_shown(&clock, &own, &server), "the clock is right and both are good");
        // Time that passes while it runs is proven, whatever the clock says.
        clock.pass(25 * DAY, on(6));
        assert!(!takes_shown(&clock, &own, &server), "it has ended, and the clock was set back");
    }

    #[test]
    fn an_end_whose_own_certificate_has_ended_judges_by_the_last_known_time() {
        // Which of both is so, that the clock is ahead or that this end was off past the end of its certificate, it cannot know.
        assert!(takes_knowing(2029, 2026, 2025, 2028));
        assert!(!takes_knowing(2029, 2029, 2025, 2028));
        assert!(
            !takes_with(&knowing(2029, 2026), (2028, 2030), (2025, 2028)),
            "with one that lives it knows"
        );
    }

    #[test]
    fn a_clock_that_is_years_off_stops_nothing() {
        for clock in [1970, 2026, 2060] {
            assert!(takes(clock, 2026, 2036), "{clock}");
            assert!(takes(clock, 2025, 2036), "{clock}");
        }
        // The server's was signed while the box lay in a drawer.
        assert!(takes(1970, 2030, 2040));
    }

    #[test]
    fn what_has_ended_is_refused_whatever_the_clock_says() {
        for clock in [1970, 2026, 2060] {
            assert!(!takes(clock, 2024, 2025), "{clock}");
        }
        assert!(!takes(2026, 2025, 2026), "a clock that may be right is believed");
    }
}
