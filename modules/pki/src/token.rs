//! Join tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// 4 KiB: the longest token that is looked at.
pub const TOKEN_MAX: usize = 4 << 10;
/// 64: the longest id of a token; those of `keadm gettoken` have 32 hexadecimal digits.
const ID_MAX: usize = 64;
/// What a token is for; one of another kind is refused.
const AUDIENCE: &str = "kubehive-join";

/// Why a token was refused. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not the shape of a token.
    #[error("this is not a join token: print a new one with `keadm gettoken` and paste it whole")]
    Malformed,
    /// The signature is not ours.
    #[error("this token was not made by this cluster: print a new one with `keadm gettoken` here")]
    Foreign,
    /// Too old.
    #[error("this token has expired: print a new one with `keadm gettoken`")]
    Expired,
    /// It pins another CA.
    #[error(
        "the server at this address shows a CA that this token does not pin: check the address, or print a new token with `keadm gettoken`"
    )]
    WrongAuthority,
    /// It is bound to another name.
    #[error("this token is bound to the name `{0}`: join under it, or print a token without --edgenode-name")]
    OtherName(String),
    /// It could not be made.
    #[error("cannot make a token")]
    Make,
}

/// The HMAC key under which a cluster's tokens are made: 32 random bytes.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenClaims {
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// What it is for.
    pub aud: String,
    /// Which token it is: the name of its object in the cluster, without which it is worth nothing.
    pub jti: String,
    /// The only name it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A token taken apart, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The pin of the CA.
    pub ca_pin: String,
    /// The JWT: what is shown to the server.
    pub jwt: String,
}

impl JoinToken {
    /// Takes `<pin>.<header>.<payload>.<signature>` apart.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_MAX || text.split('.').count() != 4 {
            return Err(TokenError::Malformed);
        }
        let (pin, jwt) = text.split_once('.').ok_or(TokenError::Malformed)?;
        let is_pin = pin.len() == 64 && pin.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let is_jwt = jwt.split('.').all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
        if !is_pin || !is_jwt {
            return Err(TokenError::Malformed);
        }
        Ok(JoinToken { ca_pin: pin.to_owned(), jwt: jwt.to_owned() })
    }

    /// What it says of itself. Whether that is true the cluster alone can tell, which has the key.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn unverified_claims(&self) -> Result<JoinTokenClaims, TokenError> {
        let payload = self.jwt.split('.').nth(1).ok_or(TokenError::Malformed)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)
    }

    /// Holds the CA that a server showed against the pin.
    ///
    /// # Errors
    /// [`TokenError::WrongAuthority`].
    pub fn check_authority(&self, ca_der: &[u8]) -> Result<(), TokenError> {
        if crate::pin_of(ca_der) == self.ca_pin { Ok(()) } else { Err(TokenError::WrongAuthority) }
    }
}

impl TokenKey {
    /// A key from its bytes; `None` when they are fewer than 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= 32).then(|| TokenKey(bytes.to_vec()))
    }

    /// Makes a token that pins `ca_der`, ends at `expires_unix`, is called `id` and, with a `node`, is bound to it.
    ///
    /// # Errors
    /// [`TokenError::Make`].
    pub fn mint(
        &self,
        ca_der: &[u8],
        expires_unix: u64,
        id: &str,
        node: Option<&str>,
    ) -> Result<String, TokenError> {
        let claims = JoinTokenClaims {
            exp: expires_unix,
            aud: AUDIENCE.to_owned(),
            jti: id.to_owned(),
            node: node.map(str::to_owned),
        };
        let key = EncodingKey::from_secret(&self.0);
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|_| TokenError::Make)?;
        Ok(format!("{}.{jwt}", crate::pin_of(ca_der)))
    }

    /// Verifies the JWT of a token at `now_unix` for a node that calls itself `node`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(&self, jwt: &str, now_unix: u64, node: &str) -> Result<JoinTokenClaims, TokenError> {
        if jwt.len() > TOKEN_MAX {
            return Err(TokenError::Malformed);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        // Checked below against the clock that we are given.
        validation.validate_exp = false;
        let key = DecodingKey::from_secret(&self.0);
        let claims = jsonwebtoken::decode::<JoinTokenClaims>(jwt, &key, &validation)
            .map_err(|error| {
                let foreign = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature);
                if foreign { TokenError::Foreign } else { TokenError::Malformed }
            })?
            .claims;
        // It names an object in the cluster, in a URL.
        let is_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if claims.jti.is_empty() || claims.jti.len() > ID_MAX || !claims.jti.bytes().all(is_id) {
            return Err(TokenError::Malformed);
        }
        if claims.exp <= now_unix {
            return Err(TokenError::Expired);
        }
        match &claims.node {
            Some(bound) if bound != node => Err(TokenError::OtherName(bound.clone())),
            Some(_) | None => Ok(claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> TokenKey {
        TokenKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_token_is_good_until_it_ends() {
        let text = key(1).mint(b"ca", 1000, "id-1", None).unwrap();
        let token = JoinToken::parse(&format!(" {text}\n")).unwrap();
        assert_eq!(token.check_authority(b"ca"), Ok(()));
        assert_eq!(token.check_authority(b"other"), Err(TokenError::WrongAuthority));
        assert_eq!(key(1).verify(&token.jwt, 999, "edge-1").unwrap().jti, "id-1");
        assert_eq!(token.unverified_claims().unwrap().exp, 1000);
        let odd = JoinToken { jwt: "a.b.c".to_owned(), ..token.clone() };
        assert_eq!(odd.unverified_claims(), Err(TokenError::Malformed));
        assert_eq!(key(1).verify(&token.jwt, 1000, "edge-1"), Err(TokenError::Expired));
        assert_eq!(key(2).verify(&token.jwt, 999, "edge-1"), Err(TokenError::Foreign));
    }

    #[test]
    fn a_bound_token_is_good_for_its_name() {
        let text = key(1).mint(b"ca", 1000, "id", Some("edge-1")).unwrap();
        let token = JoinToken::parse(&text).unwrap();
        assert!(key(1).verify(&token.jwt, 0, "edge-1").is_ok());
        assert_eq!(key(1).verify(&token.jwt, 0, "edge-2"), Err(TokenError::OtherName("edge-1".into())));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = key(1).mint(b"ca", 1000, "id", None).unwrap();
        let upper = good.to_uppercase();
        let long = "a".repeat(TOKEN_MAX + 1);
        for bad in ["", "a.b.c", "....", &good[1..], &upper, &long, &format!("{good}.x")] {
            assert_eq!(JoinToken::parse(bad), Err(TokenError::Malformed), "{bad}");
        }
        // A JWT without a signature algorithm.
        let none = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTl9.";
        assert_eq!(key(1).verify(none, 0, "edge-1"), Err(TokenError::Malformed));
        assert!(TokenKey::new(&[0; 31]).is_none());
        // An id that would be another path.
        for id in ["", "../../nodes/a?x=", "A", &"a".repeat(65)] {
            let odd = JoinToken::parse(&key(1).mint(b"ca", 1000, id, None).unwrap()).unwrap();
            assert_eq!(key(1).verify(&odd.jwt, 0, "edge-1"), Err(TokenError::Malformed), "{id}");
        }
    }
}
