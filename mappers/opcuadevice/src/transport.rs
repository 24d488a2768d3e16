//! What is sent and received on a connection, where an answer that cannot be decoded costs that answer alone.
//!
//! The library's own transport ends the connection with it, and so everything else that is asked on it: a single array beyond the bound of
//! elements would keep a device offline. Its parts are used here as they are.

use std::sync::Arc;

use futures::StreamExt as _;
use opcua_client::transport::{
    RequestRecv, SecureChannelState, Transport, TransportConfiguration, TransportPollResult, TransportState,
};
use opcua_core::RequestMessage;
use opcua_core::comms::buffer::SendBuffer;
use opcua_core::comms::tcp_codec::{Message, TcpCodec};
use opcua_core::comms::tcp_types::{AcknowledgeMessage, HelloMessage, MIN_CHUNK_SIZE};
use opcua_types::{Error, SimpleBinaryEncodable as _, StatusCode};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

use crate::chunk_sizes::ChunkSizes;
use crate::status;

pub(crate) type Reader = FramedRead<ChunkSizes<OwnedReadHalf>, TcpCodec>;

/// A connection after the server's word of welcome.
pub(crate) struct Link {
    state: TransportState,
    reader: Reader,
    writer: OwnedWriteHalf,
    sending: SendBuffer,
    /// Leave was taken: what is in the buffer is the last.
    is_leaving: bool,
    closed: Option<StatusCode>,
    url: String,
}

impl Link {
    /// Says what is received here at the most, and hears what the server does.
    ///
    /// # Errors
    /// When what it says is no welcome.
    pub(crate) async fn greet(
        (mut reader, mut writer): (Reader, OwnedWriteHalf),
        url: &str,
        channel: Arc<SecureChannelState>,
        outgoing: RequestRecv,
        config: &TransportConfiguration,
    ) -> Result<Link, Error> {
        let (send, receive) = (config.send_buffer_size, config.recv_buffer_size);
        let (message, chunks) = (config.max_message_size, config.max_chunk_count);
        let hello = HelloMessage::new(url, send, receive, message, chunks);
        let unsent = |error: std::io::Error| {
            Error::new(StatusCode::BadCommunicationError, format!("our greeting was not sent: {error}"))
        };
        writer.write_all(&hello.encode_to_vec()).await.map_err(unsent)?;
        let ack = match reader.next().await {
            Some(Ok(Message::Acknowledge(ack))) => checked(&hello, ack)?,
            other => {
                let words = format!("the server does not acknowledge our greeting: {other:?}");
                return Err(Error::new(StatusCode::BadConnectionClosed, words));
            }
        };
        let is_legacy = channel.secure_channel().read().security_policy().legacy_sequence_numbers();
        let mut sending = SendBuffer::new(send, message, chunks, is_legacy);
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        sending.revise(size(ack.receive_buffer_size), size(ack.max_message_size), size(ack.max_chunk_count));
        let received = size(ack.send_buffer_size).min(receive);
        let state = TransportState::new(channel, outgoing, chunks, received);
        Ok(Link { state, reader, writer, sending, is_leaving: false, closed: None, url: url.to_owned() })
    }

    fn received(&mut self, message: Option<Result<Message, std::io::Error>>) -> TransportPollResult {
        let message = match message {
            None => return TransportPollResult::Closed(StatusCode::BadCommunicationError),
            Some(Err(_)) => return TransportPollResult::Closed(StatusCode::BadConnectionClosed),
            Some(Ok(message)) => message,
        };
        let is_chunk = matches!(message, Message::Chunk(_));
        match self.state.handle_incoming_message(message) {
            Ok(()) => TransportPollResult::IncomingMessage,
            // Whoever waits for this answer is told that it will not come. The chunks after it are whole: each was looked at by its own
            // size, and one that was left out would be missed by its number.
            Err(error) if is_chunk && status::is_undecodable(error.status()) => {
                TransportPollResult::RecoverableError(error.status())
            }
            Err(error) => TransportPollResult::Closed(error.status()),
        }
    }

    fn send(&mut self, request: RequestMessage, id: u32) -> TransportPollResult {
        self.is_leaving |= matches!(request, RequestMessage::CloseSecureChannel(_));
        let written = {
            let channel = self.state.channel_state.secure_channel().read();
            self.sending.write(id, request, &channel)
        };
        let Err(error) = written else { return TransportPollResult::OutgoingMessage };
        let status = error.status();
        let Some((id, _)) = error.full_context() else { return TransportPollResult::Closed(status) };
        self.state.message_send_failed(id, error);
        TransportPollResult::RecoverableError(status)
    }

    /// Awaits one thing, and loses nothing when it is dropped.
    async fn step(&mut self) -> TransportPollResult {
        if self.sending.should_encode_chunks() {
            let channel = self.state.channel_state.secure_channel().read();
            if let Err(status) = self.sending.encode_next_chunk(&channel) {
                return TransportPollResult::Closed(status);
            }
        }
        if self.sending.can_read() {
            tokio::select! {
                sent = self.sending.read_into_async(&mut self.writer) => match sent {
                    Ok(()) => TransportPollResult::OutgoingMessageSent,
                    Err(_) => TransportPollResult::Closed(StatusCode::BadCommunicationError),
                },
                message = self.reader.next() => self.received(message),
            }
        } else if self.is_leaving {
            TransportPollResult::Closed(StatusCode::Good)
        } else {
            tokio::select! {
                request = self.state.wait_for_outgoing_message(&mut self.sending) => match request {
                    Some((request, id)) => self.send(request, id),
                    None => TransportPollResult::Closed(StatusCode::Good),
                },
                message = self.reader.next() => self.received(message),
            }
        }
    }
}

impl Transport for Link {
    async fn poll(&mut self) -> TransportPollResult {
        let status = match self.closed {
            Some(status) => status,
            None => match self.step().await {
                TransportPollResult::Closed(status) => status,
                other => return other,
            },
        };
        // Noted first: who polls again goes on here.
        self.closed = Some(status);
        TransportPollResult::Closed(self.state.close(status).await)
    }

    fn connected_url(&self) -> &str {
        &self.url
    }
}

fn checked(hello: &HelloMessage, ack: AcknowledgeMessage) -> Result<AcknowledgeMessage, Error> {
    if ack.protocol_version > hello.protocol_version {
        let words = format!("the server speaks version {} of the protocol", ack.protocol_version);
        return Err(Error::new(StatusCode::BadProtocolVersionUnsupported, words));
    }
    let smallest = ack.send_buffer_size.min(ack.receive_buffer_size);
    if usize::try_from(smallest).is_ok_and(|smallest| smallest < MIN_CHUNK_SIZE) {
        let words = format!("the server has {smallest} bytes for a chunk, of {MIN_CHUNK_SIZE} at the least");
        return Err(Error::new(StatusCode::BadTcpInternalError, words));
    }
    Ok(ack)
}
