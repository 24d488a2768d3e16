//! A front before the HTTP/2 library, for clients that name a path as `:authority`.
//!
//! Clients of gRPC dial a Unix socket and send as `:authority` what they dialled: grpc-go the path (`/run/x.sock`), gRPC's C
//! core, and Python with it, the path with `%2F` for each `/`. Neither is an authority by RFC 3986, and the library refuses
//! such a call with PROTOCOL_ERROR; it has no switch for that. On a Unix socket the authority says nothing, so it is
//! overwritten where it stands, in every call ([`crate::header_block`]): what the client sends stays byte by byte of the same
//! length, frames, padding and flow control are not touched, nothing is held back or buffered, and every bound and every
//! flood is the library's affair as before.
//!
//! An authority of no sign at all can't be overwritten. It is an entry of HPACK's own table, which clients name by one byte: that byte is
//! taken out, and one that names a header without a value is put at the end of the same frame, since nothing but the authority's own kind
//! may stand in its place. One that a client spells out, or whose headers go on in another frame, stays refused; RFC 9113 (8.3.1) has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::header_block::HeaderBlocks;

/// Before the first frame (RFC 9113, 3.4).
const PREFACE: u32 = 24;
/// Of a frame's head (4.1).
const HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `accept-charset` without a value, as HPACK's own table has it (RFC 7541, appendix A).
const NO_VALUE: u8 = 0x8f;
/// Of a stream's priority (6.2).
const PRIORITY_LENGTH: u32 = 5;

/// Where in the client's bytes the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes that are nobody's concern.
    Skipped(u32),
    /// So many bytes of a frame's head have come.
    Head(usize),
    /// The length of the padding of a frame of `length` bytes.
    PadLength { length: u32, flags: u8 },
    /// In the priority, of which `left` bytes are to come, before a fragment.
    Priority { left: u32, fragment: Fragment },
    /// In a fragment of a header block.
    Fragment(Fragment),
}

/// A piece of a header block, and the padding behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    left: u32,
    padding: u32,
}

/// What one connection's client sends, with its authorities overwritten. Pure.
#[derive(Debug)]
pub(crate) struct Rewriter {
    place: Place,
    head: [u8; HEAD],
    blocks: HeaderBlocks,
    /// A header block has begun and goes on in the next frame.
    open: bool,
    /// A byte was taken out of this frame, and another one is to be put at its end.
    owed: bool,
}

/// What changes the places of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    /// The byte there goes.
    Out(usize),
    /// Before the byte there comes the header without a value.
    In(usize),
}

impl Default for Rewriter {
    fn default() -> Self {
        Rewriter {
            place: Place::Skipped(PREFACE),
            head: [0; HEAD],
            blocks: HeaderBlocks::default(),
            open: false,
            owed: false,
        }
    }
}

impl Rewriter {
    /// The next bytes of the client, in their order; `Some`: what stands for them, where that is not as long.
    pub(crate) fn rewrite(&mut self, bytes: &mut [u8]) -> Option<Vec<u8>> {
        let edits = self.walk(bytes);
        (!edits.is_empty()).then(|| edited(bytes, &edits))
    }

    fn walk(&mut self, mut bytes: &mut [u8]) -> Vec<Edit> {
        let (mut edits, length) = (Vec::new(), bytes.len());
        loop {
            let at = length - bytes.len();
            if matches!(self.place, Place::Fragment(Fragment { left: 0, .. }))
                && std::mem::take(&mut self.owed)
            {
                edits.push(Edit::In(at));
            }
            self.place = self.settled();
            if bytes.is_empty() {
                return edits;
            }
            let wanted = match self.place {
                Place::Skipped(left) | Place::Priority { left, .. } => left,
                Place::Fragment(fragment) => fragment.left,
                Place::Head(_) | Place::PadLength { .. } => 1,
            };
            let here = bytes.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
            let (part, rest) = bytes.split_at_mut(here);
            bytes = rest;
            let left = wanted.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
            self.place = match self.place {
                Place::Skipped(_) => Place::Skipped(left),
                Place::Priority { fragment, .. } => Place::Priority { left, fragment },
                Place::Fragment(Fragment { padding, .. }) => {
                    if let Some(within) = self.blocks.rewrite(part) {
                        edits.push(Edit::Out(at + within));
                        self.owed = true;
                    }
                    Place::Fragment(Fragment { left, padding })
                }
                Place::Head(at) => match (self.head.get_mut(at), part) {
                    (Some(place), [byte]) => {
                        *place = *byte;
                        if at + 1 == HEAD { self.frame() } else { Place::Head(at + 1) }
                    }
                    _ => Place::Head(0),
                },
                Place::PadLength { length, flags } => {
                    let padding = part.first().copied().map_or(0, u32::from);
                    self.headers(length.saturating_sub(1), padding, flags)
                }
            };
        }
    }

    /// Leaves what has no byte left.
    fn settled(&self) -> Place {
        let mut place = self.place;
        loop {
            place = match place {
                Place::Skipped(0) => Place::Head(0),
                Place::Priority { left: 0, fragment } => Place::Fragment(fragment),
                Place::Fragment(Fragment { left: 0, padding }) => Place::Skipped(padding),
                other => return other,
            };
        }
    }

    /// A frame's head has come.
    fn frame(&mut self) -> Place {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        match kind {
            HEADERS => {
                self.open = flags & END_HEADERS == 0;
                self.blocks.begin(!self.open);
                if flags & PADDED != 0 && length > 0 {
                    Place::PadLength { length, flags }
                } else {
                    self.headers(length, 0, flags)
                }
            }
            CONTINUATION if self.open => {
                self.open = flags & END_HEADERS == 0;
                Place::Fragment(Fragment { left: length, padding: 0 })
            }
            _ => Place::Skipped(length),
        }
    }

    /// What follows the length of a HEADERS frame's padding, `length` bytes in all.
    fn headers(&self, length: u32, padding: u32, flags: u8) -> Place {
        let priority = if flags & PRIORITY != 0 { PRIORITY_LENGTH } else { 0 };
        // More of either than there is room: the library refuses the frame.
        match length.checked_sub(priority).and_then(|left| left.checked_sub(padding)) {
            Some(left) => Place::Priority { left: priority, fragment: Fragment { left, padding } },
            None => Place::Skipped(length),
        }
    }
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let (mut edited, mut from) = (Vec::with_capacity(bytes.len() + 1), 0);
    for edit in edits {
        let (Edit::Out(at) | Edit::In(at)) = *edit;
        edited.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        from = at;
        match edit {
            Edit::Out(_) => from += 1,
            Edit::In(_) => edited.push(NO_VALUE),
        }
    }
    edited.extend_from_slice(bytes.get(from..).unwrap_or_default());
    edited
}

/// A connection whose client may name any authority.
#[derive(Debug)]
pub struct AnyAuthority<C> {
    connection: C,
    rewriter: Rewriter,
    /// What had no room when it was read: a byte or two.
    rest: Vec<u8>,
}

impl<C> AnyAuthority<C> {
    /// A connection on which nothing was read yet.
    pub fn new(connection: C) -> Self {
        AnyAuthority { connection, rewriter: Rewriter::default(), rest: Vec::new() }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for AnyAuthority<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let room = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest.drain(..room).collect::<Vec<u8>>());
            return Poll::Ready(Ok(()));
        }
        loop {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.connection).poll_read(cx, buf))?;
            let Some(new) = buf.filled_mut().get_mut(before..).filter(|new| !new.is_empty()) else {
                return Poll::Ready(Ok(()));
            };
            let Some(mut edited) = self.rewriter.rewrite(new) else { return Poll::Ready(Ok(())) };
            buf.set_filled(before);
            let rest = edited.split_off(edited.len().min(buf.remaining()));
            buf.put_slice(&edited);
            self.rest = rest;
            // Nothing at all would be the end.
            if !edited.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
