//! Packets of MQTT 3.1, 3.1.1 and 5: parsed from hostile bytes, written for clients.
//!
//! rumqttd's codecs are not used: what they do with hostile bytes is shown by the tests in `packet/rumqttd_codec.rs`, each of
//! which a client could cause. What they read right would still have to be looked at here byte by byte before.

mod aliases;
pub(crate) mod as_client;
mod connect;
mod fields;
mod frame;
pub(crate) mod properties;
mod read;
mod write;

use bytes::Bytes;

pub(crate) use aliases::OutgoingAliases;
pub(crate) use frame::{beginning, connects_as, decode, peek};
#[cfg(test)]
pub(crate) use write::put_length;
pub(crate) use write::{
    Outgoing, ServerLimits, answer_size, connack, disconnect, pingresp, puback, pubcomp, pubrec, pubrel,
    put_publish, suback, unknown_version, unsuback,
};

/// How a CONNECT begins.
pub(crate) const CONNECT: u8 = 0x10;

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// 3.1, called MQIsdp.
    V31,
    #[default]
    V311,
    V5,
}

/// What a client is told about its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectCode {
    Accepted,
    UnacceptableVersion,
    IdentifierRejected,
    ServerUnavailable,
    BadUserNameOrPassword,
    NotAuthorized,
    /// Its will is on no topic.
    InvalidTopic,
    /// It wants to log in by a method that is not there.
    UnknownAuthMethod,
    /// It takes no packet as large as its CONNACK.
    PacketTooLarge,
    /// What it sent is no CONNECT, see table 2-6 of MQTT 5 for the code.
    Malformed(u8),
}

impl ConnectCode {
    /// Of 3.1 and 3.1.1, section 3.2.2.3.
    pub(crate) fn of_3(self) -> u8 {
        match self {
            ConnectCode::Accepted => 0,
            ConnectCode::UnacceptableVersion => 1,
            ConnectCode::IdentifierRejected => 2,
            ConnectCode::ServerUnavailable | ConnectCode::PacketTooLarge | ConnectCode::Malformed(_) => 3,
            ConnectCode::BadUserNameOrPassword => 4,
            ConnectCode::NotAuthorized | ConnectCode::InvalidTopic | ConnectCode::UnknownAuthMethod => 5,
        }
    }

    /// Of 5, section 3.2.2.2.
    pub(crate) fn of_5(self) -> u8 {
        match self {
            ConnectCode::Accepted => 0,
            ConnectCode::UnacceptableVersion => 0x84,
            ConnectCode::IdentifierRejected => 0x85,
            ConnectCode::BadUserNameOrPassword => 0x86,
            ConnectCode::NotAuthorized => 0x87,
            ConnectCode::ServerUnavailable => 0x89,
            ConnectCode::UnknownAuthMethod => 0x8c,
            ConnectCode::InvalidTopic => 0x90,
            ConnectCode::PacketTooLarge => 0x95,
            ConnectCode::Malformed(code) => code,
        }
    }
}

/// A password: any bytes, which show nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Bytes);

impl Password {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Password(Bytes::copy_from_slice(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// What a client asks for when it connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    /// mosquitto's way to say that it connects as a bridge.
    pub(crate) is_bridge: bool,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Password>,
    /// In seconds, of MQTT 5; [`KEPT_FOR_EVER`](crate::session::KEPT_FOR_EVER) until it has to make room.
    pub(crate) session_expiry: Option<u32>,
    /// Messages of QoS 1 and 2 that may be on their way to it.
    pub(crate) receive_maximum: u16,
    /// The largest packet that it takes.
    pub(crate) packet_maximum: usize,
    /// How many numbers for topics it takes.
    pub(crate) alias_maximum: u16,
    /// Whether it wants to read reasons.
    pub(crate) wants_reasons: bool,
    pub(crate) has_auth_method: bool,
}

/// What is published when a client is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) publish: Publish,
    /// In seconds.
    pub(crate) delay: u32,
}

/// A message on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// The client may have sent it before.
    pub(crate) dup: bool,
    /// 0 with QoS 0.
    pub(crate) pkid: u16,
    /// Stands for the topic, or is to stand for it from now on.
    pub(crate) alias: Option<u16>,
    /// In seconds.
    pub(crate) expiry: Option<u32>,
    /// What is handed on with it, encoded.
    pub(crate) properties: Bytes,
}

/// What a client subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterRequest {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    /// Nothing that the client itself publishes.
    pub(crate) no_local: bool,
    /// RETAIN comes as the publisher set it.
    pub(crate) retain_as_published: bool,
    /// 0: retained messages come; 1: only if the subscription is new; 2: none.
    pub(crate) retain_handling: u8,
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Connect(Connect),
    /// A CONNECT of another version of MQTT, whose rest was not looked at.
    OtherVersion(u8),
    Publish(Publish),
    PubAck(u16),
    /// With its reason code, 0 in 3.1.1.
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    Subscribe {
        pkid: u16,
        id: Option<u32>,
        filters: Vec<FilterRequest>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect {
        /// 0 is the polite end, after which the will is not published.
        code: u8,
        session_expiry: Option<u32>,
    },
    /// A PUBLISH that was too large and has been read to its end, without its payload.
    Oversized {
        publish: Publish,
        size: usize,
    },
}

#[cfg(test)]
mod rumqttd_codec;
#[cfg(test)]
mod tests;
