//! What a node may say to the controllers of the cloud, over the link.

use beehive::{Message, Reply};

use crate::certificate::{RenewalRefused, RenewedCertificate};
use crate::rule_call::{RuleAnswer, RuleCall};
use crate::{Batch, Report, TokenGrant, TokenQuery, Unparsed, Upload};

/// What a node may say to the edge controller.
#[derive(Debug)]
pub enum EdgeUp {
    /// Reports from the outbox, by their sequence.
    Reports {
        /// In order.
        reports: Batch<Report>,
        /// The sequences whose write succeeded, or can never succeed.
        reply: Reply<Vec<i64>>,
    },
    /// Edged makes progress: renew the Lease.
    Alive,
    /// A token, please.
    Token {
        /// Which.
        query: Unparsed<TokenQuery>,
        /// The token, or a sentence why not.
        reply: Reply<Result<TokenGrant, String>>,
    },
}

/// What a node may say to the device controller.
#[derive(Debug)]
pub enum DeviceUp {
    /// Reports from the outbox, by their sequence.
    Reports {
        /// In order.
        reports: Batch<Report>,
        /// The sequences whose write succeeded, or can never succeed.
        reply: Reply<Vec<i64>>,
    },
}

/// What a node may say to the task manager.
#[derive(Debug)]
pub enum TaskUp {
    /// Reports from the outbox, by their sequence.
    Reports {
        /// In order.
        reports: Batch<Report>,
        /// The sequences whose write succeeded, or can never succeed.
        reply: Reply<Vec<i64>>,
    },
}

/// What a node may say to the router.
#[derive(Debug)]
pub enum RouterUp {
    /// The oldest rows of the outbox.
    Telemetry {
        /// In order.
        uploads: Batch<Upload>,
        /// The rows that the router has taken, or never will.
        reply: Reply<Vec<i64>>,
    },
    /// The oldest rows of the topics of rules.
    RuleUploads {
        /// In order.
        uploads: Batch<Upload>,
        /// The rows whose target has them, or never will. Of a topic of which one is missing nothing behind it is among them.
        reply: Reply<Vec<i64>>,
    },
    /// An application of the node calls the target of a rule.
    RuleCall {
        /// How.
        call: RuleCall,
        /// What came of it.
        reply: Reply<RuleAnswer>,
    },
}

/// What a node may say to CloudHub.
#[derive(Debug)]
pub enum HubUp {
    /// Sign the key in this request. For which name is not asked: it is the link's.
    RenewCertificate {
        /// A certificate signing request (PKCS#10, DER), at most [`crate::certificate::CSR_BYTES_MAX`].
        csr_der: Vec<u8>,
        /// The certificate, or why there is none.
        reply: Reply<Result<RenewedCertificate, RenewalRefused>>,
    },
    /// The certificate of this serial, and its key, are on the node's disk: the one before it is not needed any more.
    CertificateKept {
        /// Lower-case hex.
        serial: String,
        /// `Err`: a sentence why that is not noted.
        reply: Reply<Result<(), String>>,
    },
}

impl Message for HubUp {
    fn name(&self) -> &'static str {
        match self {
            HubUp::RenewCertificate { .. } => "RenewCertificate",
            HubUp::CertificateKept { .. } => "CertificateKept",
        }
    }
}

impl Message for EdgeUp {
    fn name(&self) -> &'static str {
        match self {
            EdgeUp::Reports { .. } => "Reports",
            EdgeUp::Alive => "Alive",
            EdgeUp::Token { .. } => "Token",
        }
    }
}

impl Message for DeviceUp {
    fn name(&self) -> &'static str {
        match self {
            DeviceUp::Reports { .. } => "Reports",
        }
    }
}

impl Message for TaskUp {
    fn name(&self) -> &'static str {
        match self {
            TaskUp::Reports { .. } => "Reports",
        }
    }
}

impl Message for RouterUp {
    fn name(&self) -> &'static str {
        match self {
            RouterUp::Telemetry { .. } => "Telemetry",
            RouterUp::RuleUploads { .. } => "RuleUploads",
            RouterUp::RuleCall { .. } => "RuleCall",
        }
    }
}
