//! Certificates in version 1: what a node asks CloudHub for, and what its EdgeHub is told.

use std::time::Duration;

use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo};
use beehive::link::{Capabilities, sentence};
use serde::{Deserialize, Serialize};

use crate::certificate::{CSR_BYTES_MAX, CloudTrust, RenewalRefused, RenewedCertificate};
use crate::downlink::HubDown;
use crate::uplink::HubUp;
use crate::wire::codec::{self, back, outgoing, refused, slot, split, too_large};
use crate::wire::{CLOUD_HUB_MAILBOX, EDGE_HUB_MAILBOX};

const RENEW_CERTIFICATE: u16 = 1;
const CERTIFICATE_KEPT: u16 = 2;
const TRUST: u16 = 1;
/// 64: as many digits as a serial number may have.
const SERIAL_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct RenewCertificateV1 {
    csr_der: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct CertificateKeptV1 {
    serial: String,
}

#[derive(Serialize, Deserialize)]
struct TrustV1 {
    authorities: Vec<Vec<u8>>,
    servers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RenewedV1 {
    certificate: Vec<u8>,
    trust: TrustV1,
}

#[derive(Serialize, Deserialize)]
struct RenewalRefusedV1 {
    reason: String,
    wait_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RenewalAnswerV1(Result<RenewedV1, RenewalRefusedV1>);

/// Nothing, or a sentence why not.
#[derive(Serialize, Deserialize)]
struct TakenV1(Result<(), String>);

impl From<CloudTrust> for TrustV1 {
    fn from(CloudTrust { authorities, servers }: CloudTrust) -> Self {
        TrustV1 { authorities, servers }
    }
}

impl From<TrustV1> for CloudTrust {
    fn from(TrustV1 { authorities, servers }: TrustV1) -> Self {
        CloudTrust { authorities, servers }
    }
}

impl From<Result<RenewedCertificate, RenewalRefused>> for RenewalAnswerV1 {
    fn from(answer: Result<RenewedCertificate, RenewalRefused>) -> Self {
        let refused = |RenewalRefused { reason, wait }| RenewalRefusedV1 {
            reason,
            wait_ms: wait.map(|wait: Duration| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        RenewalAnswerV1(
            answer
                .map(|RenewedCertificate { certificate, trust }| RenewedV1 {
                    certificate,
                    trust: trust.into(),
                })
                .map_err(refused),
        )
    }
}

impl From<RenewalAnswerV1> for Result<RenewedCertificate, RenewalRefused> {
    fn from(RenewalAnswerV1(answer): RenewalAnswerV1) -> Self {
        let refused = |RenewalRefusedV1 { reason, wait_ms }| RenewalRefused {
            reason: sentence(reason.as_bytes()),
            wait: wait_ms.map(Duration::from_millis),
        };
        answer
            .map(|RenewedV1 { certificate, trust }| RenewedCertificate { certificate, trust: trust.into() })
            .map_err(refused)
    }
}

impl From<Result<(), String>> for TakenV1 {
    fn from(taken: Result<(), String>) -> Self {
        TakenV1(taken)
    }
}

impl From<TakenV1> for Result<(), String> {
    fn from(TakenV1(taken): TakenV1) -> Self {
        taken.map_err(|reason| sentence(reason.as_bytes()))
    }
}

pub(crate) fn encode_up(message: HubUp, _: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        HubUp::RenewCertificate { csr_der, reply } => {
            let body = codec::encode(&RenewCertificateV1 { csr_der }).map_err(|error| too_large(&error))?;
            Ok(outgoing(RENEW_CERTIFICATE, &body, Some(slot::<RenewalAnswerV1, _>(reply))))
        }
        HubUp::CertificateKept { serial, reply } => {
            let body = codec::encode(&CertificateKeptV1 { serial }).map_err(|error| too_large(&error))?;
            Ok(outgoing(CERTIFICATE_KEPT, &body, Some(slot::<TakenV1, _>(reply))))
        }
    }
}

pub(crate) fn decode_up(message: &[u8], reply: Option<ReplyTo>) -> Result<HubUp, DecodeError> {
    match split(message)? {
        (RENEW_CERTIFICATE, body) => {
            let RenewCertificateV1 { csr_der } = codec::decode(body).map_err(|error| refused(&error))?;
            if csr_der.len() > CSR_BYTES_MAX {
                return Err(DecodeError::new(format!("a request of {} bytes; 16 KiB may be", csr_der.len())));
            }
            Ok(HubUp::RenewCertificate { csr_der, reply: back::<RenewalAnswerV1, _>(reply)? })
        }
        (CERTIFICATE_KEPT, body) => {
            let CertificateKeptV1 { serial } = codec::decode(body).map_err(|error| refused(&error))?;
            let is_serial = (1..=SERIAL_MAX).contains(&serial.len())
                && serial.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if !is_serial {
                return Err(DecodeError::new("a serial number has 1 to 64 hexadecimal digits".to_owned()));
            }
            Ok(HubUp::CertificateKept { serial, reply: back::<TakenV1, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: CLOUD_HUB_MAILBOX, kind }),
    }
}

pub(crate) fn encode_down(message: HubDown, _: &Capabilities) -> Result<Outgoing, EncodeError> {
    match message {
        HubDown::Trust { trust, reply } => {
            let body = codec::encode(&TrustV1::from(trust)).map_err(|error| too_large(&error))?;
            Ok(outgoing(TRUST, &body, Some(slot::<TakenV1, _>(reply))))
        }
    }
}

pub(crate) fn decode_down(message: &[u8], reply: Option<ReplyTo>) -> Result<HubDown, DecodeError> {
    match split(message)? {
        (TRUST, body) => {
            let trust: TrustV1 = codec::decode(body).map_err(|error| refused(&error))?;
            let trust = CloudTrust::from(trust);
            if !trust.fits() {
                let words = "8 authorities of 16 KiB and 16 servers of 253 characters may be said";
                return Err(DecodeError::new(words.to_owned()));
            }
            Ok(HubDown::Trust { trust, reply: back::<TakenV1, _>(reply)? })
        }
        (kind, _) => Err(DecodeError::UnknownKind { mailbox: EDGE_HUB_MAILBOX, kind }),
    }
}
