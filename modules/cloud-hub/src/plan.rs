//! Decides who gets a certificate. Pure.

use std::collections::BTreeMap;

use contract::NodeName;
use pki::Claims;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The living certificate of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Living {
    /// Serial number of the certificate, lower-case hex.
    pub serial: String,
    /// When it ends, in seconds since 1970.
    pub not_after_unix: u64,
}

/// Who holds a living certificate, and which tokens have been used up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Register {
    /// Living certificates by node.
    pub nodes: BTreeMap<String, Living>,
    /// Bound tokens that were used, by id, with the second in which they end.
    pub used_tokens: BTreeMap<String, u64>,
    /// Serials that were given back before their end, with the second in which they end.
    pub revoked: BTreeMap<String, u64>,
}

/// Why a node gets no certificate. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The name is in use.
    #[error(
        "the name `{0}` has a living certificate: run `keadm reset` on that node, or join under another --edgenode-name"
    )]
    NameTaken(NodeName),
    /// A bound token is good once.
    #[error("this token has been used: print a new one with `keadm gettoken`")]
    TokenUsed,
    /// The certificate to give back is not the living one.
    #[error("the certificate of `{0}` is not the living one of that name: there is nothing to give back")]
    NotLiving(NodeName),
}

impl Register {
    /// Forgets what has ended by itself.
    pub fn expire(&mut self, now_unix: u64) {
        self.nodes.retain(|_, living| living.not_after_unix > now_unix);
        self.used_tokens.retain(|_, end| *end > now_unix);
        self.revoked.retain(|_, end| *end > now_unix);
    }

    /// Whether `node` may have a certificate for this token.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn may_enrol(&self, node: &NodeName, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        if claims.node.is_some() && self.used_tokens.contains_key(&claims.jti) {
            return Err(Refusal::TokenUsed);
        }
        let living = self.nodes.get(node.as_str());
        if living.is_some_and(|living| living.not_after_unix > now_unix) {
            return Err(Refusal::NameTaken(node.clone()));
        }
        Ok(())
    }

    /// Notes the certificate that `node` got, and that a bound token is used up.
    pub fn enrolled(&mut self, node: &NodeName, claims: &Claims, living: Living) {
        if claims.node.is_some() {
            self.used_tokens.insert(claims.jti.clone(), claims.exp);
        }
        self.nodes.insert(node.as_str().to_owned(), living);
    }

    /// Takes the certificate back and frees the name.
    ///
    /// # Errors
    /// [`Refusal::NotLiving`]: an older certificate cannot free the name of a newer one.
    pub fn release(&mut self, node: &NodeName, serial: &str) -> Result<(), Refusal> {
        match self.nodes.get(node.as_str()) {
            Some(living) if living.serial == serial => {
                self.revoked.insert(serial.to_owned(), living.not_after_unix);
                self.nodes.remove(node.as_str());
                Ok(())
            }
            Some(_) | None => Err(Refusal::NotLiving(node.clone())),
        }
    }

    /// Whether `serial` was given back.
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.contains_key(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn claims(bound: Option<&str>) -> Claims {
        Claims { exp: 1000, aud: "kubehive-join".into(), jti: "t1".into(), node: bound.map(Into::into) }
    }

    fn living(serial: &str) -> Living {
        Living { serial: serial.into(), not_after_unix: 5000 }
    }

    #[test]
    fn a_living_name_is_taken_until_it_ends_or_is_given_back() {
        let mut register = Register::default();
        let (edge, open) = (node("edge-1"), claims(None));
        assert_eq!(register.may_enrol(&edge, &open, 10), Ok(()));
        register.enrolled(&edge, &open, living("aa"));
        assert_eq!(register.may_enrol(&edge, &open, 10), Err(Refusal::NameTaken(edge.clone())));
        assert_eq!(
            register.may_enrol(&node("edge-2"), &open, 10),
            Ok(()),
            "an open token is good for many names"
        );
        assert_eq!(register.may_enrol(&edge, &open, 5000), Ok(()), "ended");
        assert_eq!(register.release(&edge, "bb"), Err(Refusal::NotLiving(edge.clone())));
        assert_eq!(register.release(&edge, "aa"), Ok(()));
        assert!(register.is_revoked("aa"));
        assert_eq!(register.may_enrol(&edge, &open, 10), Ok(()));
    }

    #[test]
    fn a_bound_token_is_good_once() {
        let mut register = Register::default();
        let (edge, bound) = (node("edge-1"), claims(Some("edge-1")));
        register.enrolled(&edge, &bound, living("aa"));
        register.release(&edge, "aa").unwrap();
        assert_eq!(register.may_enrol(&edge, &bound, 10), Err(Refusal::TokenUsed));
        register.expire(1000);
        assert!(register.used_tokens.is_empty(), "the token has ended by itself");
        register.expire(5000);
        assert_eq!(register, Register::default());
    }
}
