//! The heads of streams of rules, by the wire version of their link.

use beehive::link::WireVersion;

use super::v1::rule_streams;
use crate::rule_stream::{RuleStreamAnswer, RuleStreamError, RuleStreamRequest};

impl RuleStreamRequest {
    /// The head with its length.
    ///
    /// # Errors
    /// A field that breaks its bound, or a version that is not spoken.
    pub fn encode(&self, version: WireVersion) -> Result<Vec<u8>, RuleStreamError> {
        self.check()?;
        match version {
            WireVersion::ONE => rule_streams::encode_request(self),
            other => Err(RuleStreamError::Version(other.number())),
        }
    }

    /// Reads a head from what follows its length.
    ///
    /// # Errors
    /// When it is none, or breaks a bound.
    pub fn decode(head: &[u8], version: WireVersion) -> Result<Self, RuleStreamError> {
        let request = match version {
            WireVersion::ONE => rule_streams::decode_request(head)?,
            other => return Err(RuleStreamError::Version(other.number())),
        };
        request.check()?;
        Ok(request)
    }
}

impl RuleStreamAnswer {
    /// The head with its length.
    ///
    /// # Errors
    /// As [`RuleStreamRequest::encode`].
    pub fn encode(&self, version: WireVersion) -> Result<Vec<u8>, RuleStreamError> {
        self.check()?;
        match version {
            WireVersion::ONE => rule_streams::encode_answer(self),
            other => Err(RuleStreamError::Version(other.number())),
        }
    }

    /// Reads a head from what follows its length.
    ///
    /// # Errors
    /// As [`RuleStreamRequest::decode`].
    pub fn decode(head: &[u8], version: WireVersion) -> Result<Self, RuleStreamError> {
        let answer = match version {
            WireVersion::ONE => rule_streams::decode_answer(head)?,
            other => return Err(RuleStreamError::Version(other.number())),
        };
        answer.check()?;
        Ok(answer)
    }
}
