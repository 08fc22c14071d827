use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::filter::Shown;
use crate::api::Revision;
use crate::api::v1::event::Type;
use crate::store::{Commit, put_head};

/// A piece of a watch's stream as it goes over the wire: one `WatchResponse` as a gRPC message, in one chunk or several. It is put together once,
/// whatever the number of watches that send it. A handle.
#[derive(Clone, Debug)]
pub struct Message {
    chunks: Arc<[Bytes]>,
    /// Everything up to this revision has been sent; zero while the initial state is incomplete.
    pub revision: Revision,
    /// How many events are in it; none make a bookmark.
    pub events: usize,
}

impl Message {
    /// What is sent, in order.
    pub fn into_chunks(self) -> Arc<[Bytes]> {
        self.chunks
    }
}

/// Puts a message together. Small records are copied into one chunk, since a chunk costs each stream more than a copy costs once; large ones stay
/// where they are.
#[derive(Debug)]
pub(super) struct Builder {
    under_way: UnderWay,
    limit: usize,
    shared_from: usize,
    copied: Vec<u8>,
    /// The chunks so far; what was copied after the last of them is not in it yet.
    pieces: Vec<Piece>,
    open_from: usize,
    shared: usize,
    events: usize,
}

#[derive(Debug)]
enum Piece {
    Copied(Range<usize>),
    Shared(Bytes),
}

/// gRPC's head: not compressed, and the length in four bytes.
const HEAD: usize = 5;
/// An object from this size on is a chunk of its own: what HTTP/2 sends at once by default.
const SHARED_FROM: usize = 16 * 1024;
/// A message takes no further commit or object beyond so many bytes, …
const MESSAGE_BYTES: usize = 512 * 1024;
/// … these, when much is under way, …
const SMALL_MESSAGE_BYTES: usize = 8 * 1024;
/// … or so many events.
const MESSAGE_EVENTS: usize = 1000;
/// Room for the fields after the events.
const TAIL: usize = 16;
const REVISION_FIELD: u32 = 2;
const SYNCED_FIELD: u32 = 3;

impl Builder {
    /// Nothing yet. `room` is about how much there will be, if that is known.
    pub(super) fn new(under_way: &UnderWay, room: usize) -> Self {
        let (limit, shared_from) = if under_way.is_much() { (SMALL_MESSAGE_BYTES, 0) } else { (MESSAGE_BYTES, SHARED_FROM) };
        let mut copied = Vec::with_capacity(HEAD + room.min(limit) + TAIL);
        copied.put_bytes(0, HEAD);
        Self { under_way: under_way.clone(), limit, shared_from, copied, pieces: Vec::new(), open_from: 0, shared: 0, events: 0 }
    }

    /// Appends what is shown of a commit. Returns false, and appends nothing, when that would make it too large; a commit is never too large for an
    /// empty message.
    pub(super) fn push_commit(&mut self, commit: &Commit, shown: &[Shown]) -> bool {
        let fits = self.events + shown.len() <= MESSAGE_EVENTS && self.bytes() + bytes_of(commit, shown) <= self.limit;
        if !fits && self.events > 0 {
            return false;
        }
        for Shown { index, kind } in shown {
            let event = &commit.events[*index as usize];
            if *kind == event.kind() {
                self.push(event.record());
                self.events += 1;
            } else {
                self.push_event(*kind, &event.object());
            }
        }
        true
    }

    /// Appends an event with an encoded object.
    pub(super) fn push_event(&mut self, kind: Type, object: &Bytes) {
        put_head(kind, object.len(), &mut self.copied);
        self.push(object);
        self.events += 1;
    }

    /// How many events are in it.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Whether it has as many bytes as a message should have.
    pub(super) fn is_large(&self) -> bool {
        self.bytes() >= self.limit
    }

    /// The message; with `synced` it completes the initial state.
    pub(super) fn finish(mut self, revision: Revision, synced: bool) -> Message {
        for (field, value) in [(REVISION_FIELD, revision.0), (SYNCED_FIELD, synced.into())] {
            if value != 0 {
                encode_key(field, WireType::Varint, &mut self.copied);
                encode_varint(value, &mut self.copied);
            }
        }
        self.close();
        let length = u32::try_from(self.bytes() - HEAD).expect("a batch is far smaller than 4 GiB");
        self.copied[1..HEAD].copy_from_slice(&length.to_be_bytes());
        self.copied.shrink_to_fit();
        let copied = Bytes::from_owner(self.under_way.count(self.copied));
        let chunk = |piece| match piece {
            Piece::Copied(range) => copied.slice(range),
            Piece::Shared(bytes) => bytes,
        };
        Message { chunks: self.pieces.into_iter().map(chunk).collect(), revision, events: self.events }
    }

    fn bytes(&self) -> usize {
        self.copied.len() + self.shared
    }

    fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < self.shared_from {
            self.copied.extend_from_slice(bytes);
        } else {
            self.close();
            self.shared += bytes.len();
            self.pieces.push(Piece::Shared(bytes.clone()));
        }
    }

    /// Makes a chunk of what was copied since the last one.
    fn close(&mut self) {
        let open = self.open_from..self.copied.len();
        if !open.is_empty() {
            self.open_from = open.end;
            self.pieces.push(Piece::Copied(open));
        }
    }
}

/// How many bytes a message needs for what is shown of a commit.
pub(super) fn bytes_of(commit: &Commit, shown: &[Shown]) -> usize {
    // Whatever an event means to somebody, it is as long as its record.
    shown.iter().map(|shown| commit.events[shown.index as usize].record().len()).sum()
}

/// Counts the bytes of messages that were put together and are not sent yet, those of all streams together. Readers that are slower than we are
/// would otherwise make them pile up.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<AtomicUsize>);

/// How many bytes may be under way before messages become small.
const MUCH: usize = 64 * 1024 * 1024;

impl UnderWay {
    /// How many there are.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn is_much(&self) -> bool {
        self.bytes() >= MUCH
    }

    fn count(&self, bytes: Vec<u8>) -> Counted {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Counted { bytes, under_way: self.clone() }
    }
}

/// Bytes that count until the last stream has sent them.
struct Counted {
    bytes: Vec<u8>,
    under_way: UnderWay,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.under_way.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
