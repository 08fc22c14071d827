//! `List`: pages of one snapshot, put together from stored bytes.

use super::pages::{Pages, Token};
use crate::api::v1::ListRequest;
use crate::api::{Kind, Matcher, ObjectKey};
use crate::apiserver::Frame;
use crate::error::Result;
use crate::store::{Snapshot, Store, Stored, View};

/// How many objects a page has at most when the client sets no limit.
const DEFAULT_LIMIT: usize = 500;
/// How many bytes of objects a page has at most: with the largest object on top it stays below gRPC's default of 4 MiB.
const MAX_PAGE_BYTES: usize = 3 * 1024 * 1024 - 64 * 1024;
/// How many objects are looked at before other requests get their turn.
const OBJECTS_AT_ONCE: usize = 2_000;

/// Answers a request for a page.
pub(super) async fn page(store: &Store, pages: &Pages, request: ListRequest) -> Result<Frame> {
    let selector = request.selector.unwrap_or_default();
    let selector = Matcher::new(&selector, "selector")?;
    let token = match request.continue_token.as_str() {
        "" => None,
        text => Some(Token::decode(text)?),
    };
    let snapshot = match &token {
        None => store.current().await?,
        Some(token) => pages.resume(token, &selector)?,
    };
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    let page = collect(&snapshot, &selector, token.as_ref().map(|token| &token.after), limit).await;

    let mut response = Frame::new();
    let last = page.objects.last().map(|stored| stored.key.clone());
    for stored in page.objects {
        response.push_message(1, stored.bytes);
    }
    response.push_uint64(2, snapshot.revision().0);
    match (page.is_last, token, last) {
        (false, None, Some(last)) => response.push_string(3, pages.begin(snapshot, &selector, last).encode()),
        (false, Some(token), Some(last)) => response.push_string(3, token.moved_to(last).encode()),
        (_, Some(token), _) => pages.finish(&token),
        (_, None, _) => {}
    }
    Ok(response)
}

struct Page {
    objects: Vec<Stored>,
    is_last: bool,
}

async fn collect(snapshot: &Snapshot, selector: &Matcher, after: Option<&ObjectKey>, limit: usize) -> Page {
    let mut page = Page { objects: Vec::new(), is_last: false };
    let mut bytes = 0;
    let mut from = after.cloned().unwrap_or_else(|| first_key(selector));
    loop {
        let begin = from.clone();
        let mut objects = snapshot.range(&begin).filter(|stored| Some(&stored.key) != after);
        for stored in objects.by_ref().take(OBJECTS_AT_ONCE) {
            if is_past(&stored.key, selector) {
                page.is_last = true;
                return page;
            }
            if !matches(selector, stored) {
                continue;
            }
            bytes += stored.bytes.len();
            if page.objects.len() == limit || (bytes > MAX_PAGE_BYTES && !page.objects.is_empty()) {
                return page;
            }
            page.objects.push(stored.clone());
        }
        let Some(next) = objects.next().map(|stored| stored.key.clone()) else {
            page.is_last = true;
            return page;
        };
        from = next;
        tokio::task::yield_now().await;
    }
}

fn matches(selector: &Matcher, stored: &Stored) -> bool {
    selector.matches_key(&stored.key) && (selector.is_key_only() || selector.matches_view(&View::of(&stored.bytes)))
}

/// Where the objects that a selector can match begin.
fn first_key(selector: &Matcher) -> ObjectKey {
    match selector.kind() {
        None => ObjectKey::lower_bound(Kind::ALL[0], ""),
        Some(kind) if !selector.name().is_empty() && (!kind.is_namespaced() || !selector.namespace().is_empty()) => {
            ObjectKey::new(kind, selector.namespace(), selector.name())
        }
        Some(kind) if kind.is_namespaced() => ObjectKey::lower_bound(kind, selector.namespace()),
        Some(kind) => ObjectKey::lower_bound(kind, ""),
    }
}

/// Whether neither this key nor any after it can match.
fn is_past(key: &ObjectKey, selector: &Matcher) -> bool {
    let Some(kind) = selector.kind() else { return false };
    let namespace = selector.namespace();
    let one_namespace = !kind.is_namespaced() || !namespace.is_empty();
    key.kind() != kind
        || (kind.is_namespaced() && !namespace.is_empty() && key.namespace() != namespace)
        || (one_namespace && !selector.name().is_empty() && key.name() > selector.name())
}
