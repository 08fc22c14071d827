mod channel;
mod live;
mod property;
mod silence;
mod start;

use std::time::Duration;

use prost::Message as _;
use tempfile::TempDir;

use super::{Cursor, Hub, Message, Start};
use crate::api::v1::event::Type;
use crate::api::v1::{LabelSelector, Selector, WatchResponse};
use crate::api::{Matcher, Revision};
use crate::error::Error;
use crate::store::fixtures::{open, transaction};
use crate::store::{HistoryLimits, Store, Write};

/// A store, and a hub that follows it.
struct Watching {
    _folder: TempDir,
    store: Store,
    hub: Hub,
}

impl Watching {
    fn new() -> Self {
        Self::with_history(HistoryLimits::default())
    }

    fn with_history(history: HistoryLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), history);
        Self { _folder: folder, hub: Hub::new(&store), store }
    }

    async fn commit(&self, writes: impl IntoIterator<Item = Write>) -> Revision {
        self.store.commit(transaction(writes)).await.unwrap().revision
    }

    fn watch(&self, selectors: &[Selector], start: Start) -> Result<Cursor, Error> {
        self.hub.watch(selectors.iter().map(|selector| Matcher::new(selector, "").unwrap()).collect(), start)
    }

    /// A watch of what comes after now.
    fn watch_on(&self, selectors: &[Selector]) -> Cursor {
        self.watch(selectors, Start::After(self.store.snapshot().revision())).unwrap()
    }
}

fn kind(kind: &str) -> Selector {
    Selector { kind: kind.into(), ..Default::default() }
}

fn on_node(node: &str) -> Selector {
    Selector { kind: "Pod".into(), node_name: node.into(), ..Default::default() }
}

fn labelled(key: &str, value: &str) -> Selector {
    let labels = LabelSelector { match_labels: [(key.to_owned(), value.to_owned())].into(), ..Default::default() };
    Selector { kind: "Pod".into(), labels: Some(labels), ..Default::default() }
}

/// What a client makes of a message.
fn decoded(message: &Message) -> WatchResponse {
    let bytes = message.clone().into_chunks().concat();
    let (head, body) = bytes.split_at(5);
    assert_eq!((head[0], u32::from_be_bytes(head[1..].try_into().unwrap())), (0, body.len() as u32), "one message, not compressed");
    let decoded = WatchResponse::decode(body).unwrap();
    assert_eq!((decoded.events.len(), decoded.revision), (message.events, message.revision.0));
    decoded
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn next(cursor: &mut Cursor) -> Result<WatchResponse, Error> {
    let message = tokio::time::timeout(PATIENCE, cursor.next()).await.expect("a watch is never silent for so long")?;
    Ok(decoded(&message))
}

/// Type, name and revision of each event.
fn rows(message: &WatchResponse) -> Vec<(Type, String, u64)> {
    let row = |event: &crate::api::v1::Event| {
        let meta = event.object.as_ref().unwrap().meta();
        (event.r#type(), meta.name.clone(), meta.resource_version)
    };
    message.events.iter().map(row).collect()
}

/// Everything up to a revision.
async fn rows_up_to(cursor: &mut Cursor, revision: Revision) -> Vec<(Type, String, u64)> {
    let mut all = Vec::new();
    loop {
        let message = next(cursor).await.unwrap();
        all.extend(rows(&message));
        if message.revision >= revision.0 {
            return all;
        }
    }
}
