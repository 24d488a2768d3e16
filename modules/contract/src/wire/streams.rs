//! The heads of byte streams, by the wire version of their link.

use beehive::link::WireVersion;

use super::v1::streams;
use crate::stream::{StreamHeadError, StreamRequest, StreamResponse};

impl StreamRequest {
    /// The head, as the header of the stream.
    ///
    /// # Errors
    /// A field that breaks its bound, or a version that is not spoken.
    pub fn encode(&self, version: WireVersion) -> Result<Vec<u8>, StreamHeadError> {
        self.check()?;
        match version {
            WireVersion::ONE => streams::encode_request(self),
            other => Err(StreamHeadError::Version(other.number())),
        }
    }

    /// Reads the header of a stream.
    ///
    /// # Errors
    /// When it is none, or breaks a bound.
    pub fn decode(head: &[u8], version: WireVersion) -> Result<Self, StreamHeadError> {
        let request = match version {
            WireVersion::ONE => streams::decode_request(head)?,
            other => return Err(StreamHeadError::Version(other.number())),
        };
        request.check()?;
        Ok(request)
    }
}

impl StreamResponse {
    /// The head with its length, as the node's side begins.
    ///
    /// # Errors
    /// As [`StreamRequest::encode`].
    pub fn encode(&self, version: WireVersion) -> Result<Vec<u8>, StreamHeadError> {
        self.check()?;
        match version {
            WireVersion::ONE => streams::encode_response(self),
            other => Err(StreamHeadError::Version(other.number())),
        }
    }

    /// Reads a head from what follows its length.
    ///
    /// # Errors
    /// As [`StreamRequest::decode`].
    pub fn decode(head: &[u8], version: WireVersion) -> Result<Self, StreamHeadError> {
        let response = match version {
            WireVersion::ONE => streams::decode_response(head)?,
            other => return Err(StreamHeadError::Version(other.number())),
        };
        response.check()?;
        Ok(response)
    }
}
