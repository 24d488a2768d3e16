//! What comes from a client, packet by packet.

use std::sync::Arc;
use std::time::Duration;

use beehive::{Env, Moment};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ConnectionError, MalformedPacket};
use crate::packet::{self, Packet, Publish, Version};
use crate::plan;
use crate::stream::Reader;

/// Room for the large packets of all clients, in KiB.
pub(crate) fn large_packets(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(plan::LARGE_BYTES.max(most).div_ceil(1024)))
}

/// Of one connection: its bytes up to the packet that is not all there.
pub(crate) struct Incoming {
    pub(crate) buffer: BytesMut,
    version: Version,
    /// Bytes of the largest packet.
    limit: usize,
    large: Arc<Semaphore>,
    /// Its part of `large`, while a large packet comes.
    part: Option<OwnedSemaphorePermit>,
    /// When that packet has to be there.
    until: Option<Moment>,
    skipped: Option<Skipped>,
}

/// A publish that is too large, and is read to its end.
pub(crate) struct Skipped {
    pub(crate) publish: Publish,
    pub(crate) size: usize,
    /// Bytes that are still to come.
    left: usize,
}

impl Skipped {
    /// One that begins in `buffer`, with a header of so many bytes and `size` behind it; `None` while it is not known what it is.
    pub(crate) fn begin(
        buffer: &mut BytesMut,
        header: usize,
        size: usize,
        limit: usize,
    ) -> Result<Option<Self>, MalformedPacket> {
        let Some((publish, used)) = packet::beginning(buffer)? else { return Ok(None) };
        if header + size < used {
            return Err(MalformedPacket::TooLarge { size, limit });
        }
        buffer.advance(used);
        Ok(Some(Skipped { publish, size, left: header + size - used }))
    }

    /// Drops what has come of it. Says whether that was the rest.
    pub(crate) fn drop_more(&mut self, buffer: &mut BytesMut) -> bool {
        let now = self.left.min(buffer.len());
        buffer.advance(now);
        self.left -= now;
        self.left == 0
    }
}

impl Incoming {
    pub(crate) fn new(buffer: BytesMut, version: Version, limit: usize, large: Arc<Semaphore>) -> Self {
        Incoming { buffer, version, limit, large, part: None, until: None, skipped: None }
    }

    /// The next packet. Dropped half-way it has lost nothing.
    pub(crate) async fn hear(
        &mut self,
        env: &Env,
        socket: &mut Reader,
        until: Option<Moment>,
    ) -> Result<Packet, ConnectionError> {
        loop {
            if let Some(packet) = self.take()? {
                (self.part, self.until) = (None, None);
                return Ok(packet);
            }
            self.make_room(env).await?;
            // Of a large packet each byte is a sign of life, as long as they come fast enough.
            let silence = match (until, self.until) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (None, other) | (other, None) => other,
            };
            match fetch(env, socket, &mut self.buffer, silence).await {
                Err(ConnectionError::Silent) if self.until.is_some() => return Err(ConnectionError::Slow),
                fetched => fetched?,
            }
        }
    }

    fn take(&mut self) -> Result<Option<Packet>, MalformedPacket> {
        if self.skipped.is_none() {
            match packet::decode(&mut self.buffer, self.limit, self.version) {
                Err(MalformedPacket::TooLarge { size, limit }) if self.may_skip(size) => {
                    let Some((_, header, _)) = packet::peek(&self.buffer, self.version)? else {
                        return Ok(None);
                    };
                    self.skipped = Skipped::begin(&mut self.buffer, header, size, limit)?;
                    if self.skipped.is_none() {
                        return Ok(None);
                    }
                }
                decoded => return decoded,
            }
        }
        let Some(skipped) = &mut self.skipped else { return Ok(None) };
        if !skipped.drop_more(&mut self.buffer) {
            return Ok(None);
        }
        Ok(self.skipped.take().map(|Skipped { publish, size, .. }| Packet::Oversized { publish, size }))
    }

    /// MQTT 5 has a word for it. Before, a client whose connection is closed sends the same again, for ever.
    fn may_skip(&self, size: usize) -> bool {
        let is_publish = self.buffer.first().is_some_and(|first| first >> 4 == 3);
        self.version != Version::V5 && is_publish && size <= plan::SKIPPED_BYTES
    }

    /// Before more of a large packet is read there has to be room for all of it.
    async fn make_room(&mut self, env: &Env) -> Result<(), ConnectionError> {
        let size = match &self.skipped {
            Some(skipped) => skipped.left,
            None => packet::peek(&self.buffer, self.version)?.map_or(0, |(_, _, length)| length),
        };
        if size <= plan::SMALL_BYTES || self.until.is_some() {
            return Ok(());
        }
        if self.skipped.is_none() {
            let part = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
            let part = Arc::clone(&self.large).acquire_many_owned(part).await;
            self.part = Some(part.map_err(|_| ConnectionError::Ending)?);
        }
        let seconds = 10 + size / plan::LARGE_RATE;
        self.until = Some(env.now() + Duration::from_secs(seconds as u64));
        Ok(())
    }
}

/// Reads what there is.
pub(crate) async fn fetch<R: AsyncRead + Unpin>(
    env: &Env,
    socket: &mut R,
    buffer: &mut BytesMut,
    until: Option<Moment>,
) -> Result<(), ConnectionError> {
    if buffer.is_empty() && buffer.capacity() > plan::BUFFER_BYTES {
        // One large packet is no reason to keep so much for a silent client.
        *buffer = BytesMut::new();
    }
    buffer.reserve(1024);
    let read = socket.read_buf(buffer);
    let count = match until {
        Some(until) => env.timeout(until.since(env.now()), read).await.ok_or(ConnectionError::Silent)??,
        None => read.await?,
    };
    if count == 0 { Err(ConnectionError::Closed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    fn incoming(limit: usize, version: Version) -> Incoming {
        Incoming::new(BytesMut::new(), version, limit, large_packets(limit))
    }

    #[test]
    fn a_publish_that_is_too_large_is_read_to_its_end_and_what_follows_is_heard() {
        let mut all = vec![0x34, 0xaa, 0x02, 0, 3, b'a', b'/', b'b', 0, 7];
        all.extend([b'x'; 298 - 7]);
        all.extend([0xc0, 0]);
        // However it is cut into pieces.
        for size in [1, 3, 64, 1000] {
            let mut incoming = incoming(100, Version::V311);
            let mut heard = Vec::new();
            for piece in all.chunks(size) {
                incoming.buffer.put_slice(piece);
                while let Some(packet) = incoming.take().unwrap() {
                    heard.push(packet);
                }
                assert!(incoming.buffer.len() < 100 || size > 100);
            }
            let [Packet::Oversized { publish, size: 298 }, Packet::PingReq] = heard.as_slice() else {
                panic!("{heard:?}")
            };
            assert_eq!((publish.topic.as_str(), publish.qos, publish.pkid), ("a/b", 2, 7));
        }
    }

    #[test]
    fn what_is_too_large_to_be_dropped_or_is_told_so_ends_the_connection() {
        let begin = |bytes: &[u8], version| {
            let mut incoming = incoming(100, version);
            incoming.buffer.put_slice(bytes);
            incoming.take()
        };
        let publish = [0x30, 0xac, 0x02, 0, 1, b'a'];
        assert!(matches!(begin(&publish, Version::V5), Err(MalformedPacket::TooLarge { size: 300, .. })));
        assert_eq!(begin(&publish, Version::V311), Ok(None));
        assert!(begin(&[0x82, 0xac, 0x02, 0, 1], Version::V311).is_err());
        assert!(begin(&[0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1], Version::V311).is_err());
        assert_eq!(begin(&[0x32, 0xac, 0x02, 0x01, 0], Version::V311), Ok(None));
        assert!(begin(&[0x32, 0xac, 0x02, 0xff, 0xff], Version::V311).is_err());
    }
}
