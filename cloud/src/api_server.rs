//! The API server while CloudCore starts. One that is away, or not ready yet, is asked again: a machine that boots, and a Deployment
//! whose control plane is exchanged, start CloudCore before it. What waiting does not mend ends the start, in words of its own.

use std::error::Error as StdError;
use std::time::Duration;

use beehive::Env;
use kube::client::AuthError;

use crate::start_error::{ApiServerError, StartError};
use crate::start_pages::StartPages;

/// 1 s, doubled at each time up to 30 s, before an API server that does not answer is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// 512 characters of an answer are told: an API server names an account, a kind and a namespace.
const ANSWER_MAX: usize = 512;

/// What a failure of a start is due to.
#[derive(Debug)]
enum Cause {
    /// It does not answer, or says itself that it cannot yet: for this reason.
    Away(String),
    /// Its certificate is not taken.
    ServerCertificate(rustls::Error),
    /// It ends the handshake.
    ClientCertificate(rustls::Error),
    /// The token fits in no header.
    NoToken,
    /// It does not know who asks, and says so.
    Unauthorized(String),
    /// It does not allow it, and says what.
    Forbidden(String),
    /// Another answer: its code and words. What it is about is said beside it.
    Refused(u16, String),
    /// Something else, which says itself what it is.
    Other,
}

fn cause(failed: &StartError) -> Cause {
    let Some(error) = in_chain::<kube::Error>(failed) else { return Cause::Other };
    match error {
        kube::Error::Api(status) => match status.code {
            401 => Cause::Unauthorized(answer(status)),
            // Where a definition alone may not be written, `CrdError::NotOurs` says who applies it.
            403 => Cause::Forbidden(answer(status)),
            429 | 500.. => Cause::Away(format!("it answers {}: {}", status.code, answer(status))),
            code => Cause::Refused(code, answer(status)),
        },
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            match in_chain::<rustls::Error>(error) {
                Some(refused @ rustls::Error::InvalidCertificate(_)) => {
                    Cause::ServerCertificate(refused.clone())
                }
                Some(refused @ rustls::Error::AlertReceived(_)) => Cause::ClientCertificate(refused.clone()),
                _ if matches!(in_chain(error), Some(AuthError::InvalidBearerToken(_))) => Cause::NoToken,
                _ => Cause::Away(words(error)),
            }
        }
        _ => Cause::Other,
    }
}

/// What an answer says, without the rest of it, of which kube's own words are a dump; or its reason, where it says nothing.
fn answer(status: &kube::core::Status) -> String {
    let said = [&status.message, &status.reason].into_iter().find(|text| !text.trim().is_empty());
    let said = said.map_or("without a word", |said| said.trim());
    said.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(ANSWER_MAX).collect()
}

/// What failed, down to what kube says of it.
fn what(failed: &StartError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut at: Option<&(dyn StdError + 'static)> = Some(failed);
    while let Some(error) = at.filter(|error| !error.is::<kube::Error>()) {
        said.push(error.to_string());
        at = error.source();
    }
    said.dedup();
    said.join(": ")
}

/// The first error of this type among `error` and its causes. What `std::io::Error` and boxes of others hold is looked into.
fn in_chain<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // What an `io::Error` holds is not its source, but that one's source is.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        at = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// The last of the causes, which is what the system or the library said: those before it say that a request failed.
fn words(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

/// What follows a failure.
enum Verdict {
    /// It is asked again, for this reason.
    Again(String),
    /// Waiting does not mend it.
    Ends(StartError),
}

fn verdict(failed: StartError, server: &str) -> Verdict {
    let named = server.to_owned();
    let lasting = match cause(&failed) {
        Cause::Away(reason) => return Verdict::Again(reason),
        Cause::Other => return Verdict::Ends(failed),
        Cause::ServerCertificate(source) => ApiServerError::ServerCertificate { server: named, source },
        Cause::ClientCertificate(source) => ApiServerError::ClientCertificate { server: named, source },
        Cause::NoToken => ApiServerError::NoToken { server: named },
        Cause::Unauthorized(answer) => ApiServerError::Unauthorized { server: named, answer },
        Cause::Forbidden(answer) => ApiServerError::Forbidden { server: named, answer },
        Cause::Refused(code, answer) => {
            ApiServerError::Refused { what: what(&failed), server: named, code, answer }
        }
    };
    Verdict::Ends(StartError::ApiServer(lasting))
}

/// Does `work` again and again until the API server `server` answers, and says meanwhile at the admin endpoint what is waited for.
///
/// # Errors
/// What waiting does not mend.
pub(crate) async fn until_answered<T>(
    server: &str,
    pages: &mut StartPages,
    env: &Env,
    work: impl AsyncFn() -> Result<T, StartError>,
) -> Result<T, StartError> {
    let server = if server.is_empty() { "of this process" } else { server };
    let mut pause = AGAIN_AFTER;
    loop {
        let failed = match work().await {
            Ok(done) => return Ok(done),
            Err(failed) => failed,
        };
        let reason = match verdict(failed, server) {
            Verdict::Again(reason) => reason,
            Verdict::Ends(why) => return Err(why),
        };
        env.count("cloudcore_api_server_away");
        tracing::warn!(
            url = server,
            reason,
            seconds = pause.as_secs(),
            "the API server is not reachable; CloudCore asks it again"
        );
        pages.say(&format!("the API server {server} is not reachable: {reason}"), env)?;
        env.sleep(env.jitter(pause)).await;
        pause = (2 * pause).min(AGAIN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds::CrdError;

    fn failed(source: kube::Error) -> StartError {
        StartError::Definitions(CrdError::Apply { name: "x".to_owned(), source })
    }

    fn answered(code: u16) -> StartError {
        let status = kube::core::Status { code, ..Default::default() };
        failed(kube::Error::Api(Box::new(status)))
    }

    fn broken(kind: std::io::ErrorKind, why: impl Into<Box<dyn StdError + Send + Sync>>) -> StartError {
        failed(kube::Error::Service(Box::new(std::io::Error::new(kind, why))))
    }

    #[test]
    fn what_passes_is_waited_for_and_what_lasts_is_not() {
        for code in [429, 500, 502, 503] {
            assert!(matches!(cause(&answered(code)), Cause::Away(_)), "{code}");
        }
        let refused = cause(&broken(std::io::ErrorKind::ConnectionRefused, "Connection refused"));
        assert!(matches!(&refused, Cause::Away(why) if why == "Connection refused"), "{refused:?}");
        assert!(matches!(cause(&answered(401)), Cause::Unauthorized(_)));
        assert!(matches!(cause(&answered(403)), Cause::Forbidden(_)));
        let other = cause(&answered(404));
        assert!(
            matches!(other, Cause::Refused(404, _)),
            "it is no API server, or of another kind: {other:?}"
        );
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let alert = cause(&broken(std::io::ErrorKind::InvalidData, alert));
        assert!(matches!(alert, Cause::ClientCertificate(_)), "{alert:?}");
        let header = http::HeaderValue::from_str("a\nb").unwrap_err();
        let token = failed(kube::Error::Service(Box::new(AuthError::InvalidBearerToken(header))));
        assert!(matches!(cause(&token), Cause::NoToken));
        assert!(matches!(cause(&StartError::Address("x".to_owned())), Cause::Other));
    }

    /// kube shows an answer as a programmer sees it, twice; and each layer above would add its own cure.
    #[test]
    fn an_answer_is_said_once_and_in_its_own_words() {
        for code in [401, 403, 404] {
            let message = "customresourcedefinitions is forbidden:\nUser \"x\" cannot get it".to_owned();
            let status = kube::core::Status { code, message, ..Default::default() };
            let failed = failed(kube::Error::Api(Box::new(status)));
            let Verdict::Ends(error) = verdict(failed, "https://a:1") else { panic!("{code} is waited for") };
            let said = beehive::Fault::from_error(&error).reason;
            assert!(said.contains("is forbidden: User \"x\" cannot get it"), "{said}");
            assert_eq!(said.matches("cannot get it").count(), 1, "{said}");
            assert_eq!(said.matches("keadm init").count(), usize::from(code != 401), "{said}");
            assert!(!said.contains("Status {") && !said.contains("ApiError"), "{said}");
        }
    }
}
