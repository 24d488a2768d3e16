//! The token of a kubeconfig, as kubectl reads it: blanks and line ends around it do not count, and a file of it (`tokenFile`) is read
//! again about once a minute, since whoever put it there makes it anew before it ends.
//!
//! kube takes a file as it is: one that ends in a line break, as editors and `echo` write it, fails each request as
//! if the API server were away; and a token in the kubeconfig itself that fits in no header ends the program by a panic.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use beehive::{Clock, Moment, TokioClock};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use kube::Config;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tower::{Layer, Service};

/// 64 KiB: more than any server takes in a header, and tokens of service accounts have some two.
const TOKEN_MAX: u64 = 64 << 10;
/// 50 s between two looks at the file, as client-go: a token that is made anew is used within a minute.
const AGAIN_AFTER: Duration = Duration::from_secs(50);

/// Why a kubeconfig's token is none.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Its file cannot be read.
    #[error(
        "cannot read the token file `{path}`: check that it is there and that this user may read it (tokenFile of the kubeconfig)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What its file holds is no token.
    #[error(
        "the token file `{path}` {unfit}: write into it what `kubectl create token` prints, and nothing else"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        unfit: Unfit,
    },
    /// What stands in the kubeconfig is no token.
    #[error(
        "the user's token in the kubeconfig {unfit}: write there what `kubectl create token` prints, and nothing else"
    )]
    Written {
        /// Why.
        unfit: Unfit,
    },
}

/// Why something is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// There is nothing, or blanks alone.
    Empty,
    /// A folder, a pipe or a device.
    NoFile,
    /// It has more than 64 KiB.
    TooLarge,
    /// It has several lines or other characters that no HTTP header takes.
    NoHeader,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Empty => "is empty",
            Unfit::NoFile => "is no regular file",
            Unfit::TooLarge => "has more than 64 KiB, and is no token",
            Unfit::NoHeader => {
                "holds what fits in no HTTP header (several lines, or characters that nobody sees), and is no token"
            }
        })
    }
}

/// What a client of kube's is layered with, so that its requests show the token. Of a kubeconfig without a `tokenFile` it adds nothing:
/// kube does the rest.
#[derive(Clone, Default)]
pub struct Token(Option<Arc<Shared>>);

struct Shared {
    clock: TokioClock,
    file: Mutex<TokenFile>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Token(of a file)" } else { "Token(none)" })
    }
}

/// Takes the `tokenFile` out of `config`, and leaves a token that stands there itself as it fits in a header. A name and a password, and
/// a provider of credentials, come first with kube, and stay its own.
///
/// # Errors
/// See [`TokenError`]; a file that cannot be read now is one, unless a token stands beside it.
pub fn take_token(config: &mut Config) -> Result<Token, TokenError> {
    let auth = &mut config.auth_info;
    if auth.auth_provider.is_some() || (auth.username.is_some() && auth.password.is_some()) {
        return Ok(Token::default());
    }
    let written = auth.token.take().map(|token| fitting(token.expose_secret().as_bytes()));
    let written = written.transpose().map_err(|unfit| TokenError::Written { unfit })?;
    let Some(path) = auth.token_file.take().map(PathBuf::from) else {
        auth.token = written.map(|token| SecretString::from(token.text));
        return Ok(Token::default());
    };
    // As client-go: the file's is the newer one, and the written one is for a file that is not there.
    let token = match (read(&path), written) {
        (Ok(token), _) | (Err(_), Some(token)) => token,
        (Err(error), None) => return Err(error),
    };
    let clock = TokioClock::real();
    let file = TokenFile { path, header: token.header, looked_at: clock.now() };
    Ok(Token(Some(Arc::new(Shared { clock, file: Mutex::new(file) }))))
}

/// A token, and the header that shows it.
struct Fitting {
    text: String,
    header: HeaderValue,
}

fn fitting(given: &[u8]) -> Result<Fitting, Unfit> {
    let text = std::str::from_utf8(given).map_err(|_| Unfit::NoHeader)?.trim();
    if text.is_empty() {
        return Err(Unfit::Empty);
    }
    let mut header = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| Unfit::NoHeader)?;
    header.set_sensitive(true);
    Ok(Fitting { text: text.to_owned(), header })
}

fn read(path: &Path) -> Result<Fitting, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    let unfit = |unfit| TokenError::File { path: path.to_owned(), unfit };
    // Asked before it is opened: a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unfit(Unfit::NoFile));
    }
    let mut given = Vec::new();
    File::open(path).and_then(|file| file.take(TOKEN_MAX + 1).read_to_end(&mut given)).map_err(failed)?;
    if given.len() as u64 > TOKEN_MAX {
        return Err(unfit(Unfit::TooLarge));
    }
    fitting(&given).map_err(unfit)
}

/// A file of a token, and what it held last.
struct TokenFile {
    path: PathBuf,
    header: HeaderValue,
    looked_at: Moment,
}

impl TokenFile {
    /// The header at the time `now`. A file that is gone or no token any more leaves the last good one in use, as with client-go: it may be
    /// in the middle of being written, or have been taken away on purpose.
    fn header(&mut self, now: Moment) -> HeaderValue {
        if now.since(self.looked_at) >= AGAIN_AFTER {
            self.looked_at = now;
            match read(&self.path) {
                Ok(token) => self.header = token.header,
                Err(error) => {
                    let error = beehive::Fault::from_error(&error).reason;
                    tracing::warn!(error, "the token is not read anew, and the last one goes on");
                }
            }
        }
        self.header.clone()
    }
}

impl<S> Layer<S> for Token {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> WithToken<S> {
        WithToken { inner, token: self.clone() }
    }
}

/// A client's service whose requests show the token.
#[derive(Debug, Clone)]
pub struct WithToken<S> {
    inner: S,
    token: Token,
}

impl<S, B> Service<Request<B>> for WithToken<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(shared) = &self.token.0 {
            let now = shared.clock.now();
            let header = shared.file.lock().unwrap_or_else(PoisonError::into_inner).header(now);
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests;
