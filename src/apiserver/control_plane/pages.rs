//! Continue tokens, and the snapshots that they refer to.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{Matcher, ObjectKey, Revision};
use crate::error::{Error, Result};
use crate::store::Snapshot;

/// How many unfinished lists keep their snapshot; the oldest loses it when one more begins.
const UNFINISHED_LISTS: usize = 64;
/// How long an unfinished list keeps its snapshot.
const MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The snapshots of lists that have further pages.
#[derive(Debug)]
pub(super) struct Pages {
    /// Tells the lists of this apiserver process from those of an earlier one.
    process: u32,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    last_id: u32,
    /// By age: ids only grow.
    unfinished: BTreeMap<u32, (Snapshot, Instant)>,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    process: u32,
    list: u32,
    revision: Revision,
    selector: u64,
    /// The last object of the page before.
    pub(super) after: ObjectKey,
}

impl Default for Pages {
    fn default() -> Self {
        Self { process: fastrand::u32(..), lists: Mutex::default() }
    }
}

impl Pages {
    /// Keeps the snapshot of a list whose first page ends with `after`.
    pub(super) fn begin(&self, snapshot: Snapshot, selector: &Matcher, after: ObjectKey) -> Token {
        let mut lists = self.lock();
        lists.last_id = lists.last_id.wrapping_add(1);
        let list = lists.last_id;
        let revision = snapshot.revision();
        lists.unfinished.insert(list, (snapshot, Instant::now()));
        if lists.unfinished.len() > UNFINISHED_LISTS {
            lists.unfinished.pop_first();
        }
        Token { process: self.process, list, revision, selector: hash(selector), after }
    }

    /// The snapshot of the list that a token continues.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the token is of another selector, [`Error::TokenExpired`] when the snapshot is gone.
    pub(super) fn resume(&self, token: &Token, selector: &Matcher) -> Result<Snapshot> {
        if token.selector != hash(selector) {
            return Err(Error::invalid("continue_token", "belongs to a list with another selector"));
        }
        let lists = self.lock();
        let list = lists.unfinished.get(&token.list).filter(|_| token.process == self.process);
        let fresh = list.filter(|(_, since)| since.elapsed() < MAX_AGE);
        fresh.map(|(snapshot, _)| snapshot.clone()).ok_or(Error::TokenExpired { revision: token.revision })
    }

    /// The last page of a list was read.
    pub(super) fn finish(&self, token: &Token) {
        self.lock().unfinished.remove(&token.list);
    }

    /// Lets go of the snapshots that are too old.
    pub(super) fn drop_old(&self) {
        self.lock().unfinished.retain(|_, (_, since)| since.elapsed() < MAX_AGE);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().expect("no panic while held")
    }
}

/// Two selectors of one meaning have one hash; it is the same in every process.
fn hash(selector: &Matcher) -> u64 {
    let mut hasher = DefaultHasher::new();
    selector.hash(&mut hasher);
    hasher.finish()
}

impl Token {
    /// The same place in a later page.
    pub(super) fn moved_to(&self, after: ObjectKey) -> Self {
        Self { after, ..self.clone() }
    }

    /// As the client gets it.
    pub(super) fn encode(&self) -> String {
        let mut bytes = Vec::new();
        bytes.extend(self.process.to_be_bytes());
        bytes.extend(self.list.to_be_bytes());
        bytes.extend(self.revision.0.to_be_bytes());
        bytes.extend(self.selector.to_be_bytes());
        bytes.extend(self.after.as_stored().as_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what a client sends.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything that is no token.
    pub(super) fn decode(text: &str) -> Result<Self> {
        Self::parse(text).ok_or_else(|| Error::invalid("continue_token", "is not one that this apiserver gave out"))
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = text.as_bytes().chunks(2).map(hex).collect::<Option<_>>()?;
        let (content, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (process, rest) = content.split_first_chunk()?;
        let (list, rest) = rest.split_first_chunk()?;
        let (revision, rest) = rest.split_first_chunk()?;
        let (selector, key) = rest.split_first_chunk()?;
        Some(Self {
            process: u32::from_be_bytes(*process),
            list: u32::from_be_bytes(*list),
            revision: Revision(u64::from_be_bytes(*revision)),
            selector: u64::from_be_bytes(*selector),
            after: ObjectKey::from_stored(std::str::from_utf8(key).ok()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;
    use crate::api::v1::Selector;

    fn selector(kind: &str) -> Matcher {
        Matcher::new(&Selector { kind: kind.into(), ..Default::default() }, "selector").unwrap()
    }

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::Pod, "default", "web-1")
    }

    #[test]
    fn a_token_survives_the_way_to_the_client_and_nothing_else_does() {
        let token = Pages::default().begin(Snapshot::default(), &selector("Pod"), key());
        let text = token.encode();
        assert_eq!(Token::decode(&text), Ok(token));
        for garbage in ["x", "00", "zz", &text[2..], &text[..text.len() - 2], &text.replacen('7', "8", 1), &format!("{text}00"), "é€"] {
            let garbage_is_other = garbage != text;
            assert!(garbage_is_other && matches!(Token::decode(garbage), Err(Error::Invalid(_))), "{garbage}");
        }
    }

    #[test]
    fn a_token_is_good_for_its_own_selector_and_process_only() {
        let pages = Pages::default();
        let token = pages.begin(Snapshot::default(), &selector("Pod"), key());
        pages.resume(&token, &selector("Pod")).unwrap();
        assert!(matches!(pages.resume(&token, &selector("Node")), Err(Error::Invalid(_))));
        let other = Pages { process: pages.process.wrapping_add(1), ..Pages::default() };
        other.begin(Snapshot::default(), &selector("Pod"), key());
        assert!(matches!(other.resume(&token, &selector("Pod")), Err(Error::TokenExpired { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_keeps_its_snapshot_for_five_minutes() {
        let pages = Pages::default();
        let token = pages.begin(Snapshot::default(), &selector("Pod"), key());
        tokio::time::advance(MAX_AGE - Duration::from_secs(1)).await;
        pages.drop_old();
        pages.resume(&token, &selector("Pod")).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(pages.resume(&token, &selector("Pod")), Err(Error::TokenExpired { .. })));
        pages.drop_old();
        assert!(pages.lock().unfinished.is_empty());
    }

    #[test]
    fn the_oldest_of_too_many_unfinished_lists_loses_its_snapshot() {
        let pages = Pages::default();
        let tokens: Vec<_> = (0..=UNFINISHED_LISTS).map(|_| pages.begin(Snapshot::default(), &selector("Pod"), key())).collect();
        assert!(matches!(pages.resume(&tokens[0], &selector("Pod")), Err(Error::TokenExpired { .. })));
        for token in &tokens[1..] {
            pages.resume(token, &selector("Pod")).unwrap();
        }
        pages.finish(&tokens[1]);
        assert!(pages.resume(&tokens[1], &selector("Pod")).is_err());
    }
}
