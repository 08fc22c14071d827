//! The request of a watch, which may be far larger than any other: it is looked at before it becomes objects, which take many times the memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use bytes::Buf as _;
use futures_util::stream::{self, TryStreamExt as _};
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::codec::{DecodeBuf, Decoder, Streaming};
use tonic::{Code, Status};

use super::refuse::drain;
use super::watch::{MAX_REQUEST_BYTES, MAX_SELECTORS};
use crate::api::v1::WatchRequest;
use crate::error::{Error, Result};

/// How long a request may take to come in.
const WITHIN: Duration = Duration::from_secs(60);
/// What a request has beyond this many bytes …
const LARGE: usize = 256 * 1024;
/// … is taken from this, in KiB, in the whole process. A request that finds nothing left is refused: if it waited with a body that isn't read, everything
/// else on its connection would wait, too, the requests that it waits for among them.
static LARGE_KIB: Semaphore = Semaphore::const_new(256 * 1024);
/// When to come again then.
const RETRY: Duration = Duration::from_secs(1);
/// The most bytes in all selectors of a request.
const MAX_SELECTOR_BYTES: usize = 256 * 1024;
/// The shortest known object that names one, with its length: kind, name and version of `Pod/a`.
const SHORTEST_KNOWN: usize = 13;
/// How many shorter ones are looked at, to say what is wrong with them.
const MAX_SHORT: usize = 1_000;

/// Reads the one message of a request, as tonic does for every other method.
pub(super) async fn decode(request: Request) -> Result<WatchRequest, Status> {
    let encoding = request.headers().get("grpc-encoding").map(HeaderValue::as_bytes);
    if let Some(encoding) = encoding.filter(|encoding| *encoding != b"identity") {
        let encoding = String::from_utf8_lossy(encoding);
        let mut refusal = Status::unimplemented(format!("content is compressed with `{encoding}`, which isn't supported"));
        refusal.metadata_mut().insert("grpc-accept-encoding", "identity".parse().expect("plain letters"));
        return Err(refusal);
    }
    let late = |_| Error::Timeout(format!("the request did not come in within {} s", WITHIN.as_secs()));
    timeout(WITHIN, read(request.into_body())).await.map_err(late)?
}

async fn read(body: Body) -> Result<WatchRequest, Status> {
    // What is taken is held until the request is decoded.
    let taken = Arc::new(Mutex::new(Vec::new()));
    let (take, is_refused) = (Arc::clone(&taken), Arc::new(AtomicBool::new(false)));
    let refuse = Arc::clone(&is_refused);
    let body = stream::try_unfold((body.into_data_stream(), 0_usize), move |(mut pieces, before)| {
        let (take, refuse) = (Arc::clone(&take), Arc::clone(&refuse));
        async move {
            let Some(piece) = pieces.try_next().await? else { return Ok(None) };
            let after = before + piece.len();
            let kib = |bytes: usize| bytes.saturating_sub(LARGE).div_ceil(1024) as u32;
            match LARGE_KIB.try_acquire_many(kib(after) - kib(before)) {
                Ok(permit) => lock(&take).push(permit),
                Err(_) => {
                    refuse.store(true, Ordering::Relaxed);
                    drain(pieces).await;
                    return Ok(None);
                }
            }
            Ok::<_, axum::Error>(Some((piece, (pieces, after))))
        }
    });
    let mut messages = Streaming::new_request(Careful, Body::from_stream(body), None, Some(MAX_REQUEST_BYTES));
    let message = messages.message().await;
    if is_refused.load(Ordering::Relaxed) {
        let message = "too many large requests are coming in at the same time".to_owned();
        return Err(Error::Exhausted { message, retry_after: Some(RETRY) }.into());
    }
    let message = message.map_err(refusal)?.ok_or_else(|| Status::internal("the request has no message"))?;
    // What follows has no meaning, but the request is complete only when it is read.
    messages.trailers().await?;
    Ok(message)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while holding it")
}

/// tonic's word for a message that is too large is the one for a revision that is gone.
fn refusal(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => {
            let message = format!("the request is too large: at most {} MiB are taken", MAX_REQUEST_BYTES / 1024 / 1024);
            Error::Exhausted { message, retry_after: None }.into()
        }
        _ => status,
    }
}

/// Decodes what was found to be no more than it may be.
struct Careful;

impl Decoder for Careful {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        check(&message)?;
        WatchRequest::decode(message).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

const SELECTORS: u32 = 1;
const KNOWN: u32 = 4;

/// Makes sure that an encoded request is not far larger once it is decoded.
fn check(mut message: &[u8]) -> Result<()> {
    let (mut selectors, mut selector_bytes, mut short) = (0, 0, 0);
    while !message.is_empty() {
        let before = message.len();
        let field = decode_key(&mut message).and_then(|(field, wire_type)| {
            skip_field(wire_type, field, &mut message, DecodeContext::default())?;
            Ok(field)
        });
        // Whoever decodes it says what is wrong.
        let Ok(field) = field else { break };
        let length = before - message.len() - 1;
        match field {
            SELECTORS => (selectors, selector_bytes) = (selectors + 1, selector_bytes + length),
            KNOWN if length < SHORTEST_KNOWN => short += 1,
            _ => {}
        }
    }
    if selectors > MAX_SELECTORS {
        return Err(Error::invalid("selectors", format!("{selectors} selectors; at most {MAX_SELECTORS} are taken")));
    }
    if selector_bytes > MAX_SELECTOR_BYTES {
        return Err(Error::invalid("selectors", format!("{selector_bytes} bytes; at most {MAX_SELECTOR_BYTES} are taken")));
    }
    if short > MAX_SHORT {
        return Err(Error::invalid("known", format!("{short} of them name no object at a version")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{KnownObject, LabelSelector, LabelSelectorRequirement, ObjectRef, Selector};

    fn refused(request: &WatchRequest) -> Option<String> {
        match check(&request.encode_to_vec()) {
            Ok(()) => None,
            Err(Error::Invalid(violations)) => Some(violations[0].path.clone()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_that_is_none_is_left_to_whoever_decodes_it() {
        let too_large = [128, 128, 128, 128, 128, 128, 128, 128, 128, 2, 0];
        check(&too_large).unwrap();
        WatchRequest::decode(&too_large[..]).unwrap_err();
    }

    #[test]
    fn what_would_be_far_larger_once_it_is_decoded_is_refused_before() {
        let selectors = |many| WatchRequest { selectors: vec![Selector::default(); many], ..Default::default() };
        assert_eq!(refused(&selectors(64)), None);
        assert_eq!(refused(&selectors(1_000_000)), Some("selectors".into()));
        let requirements = vec![LabelSelectorRequirement::default(); 1_000_000];
        let labels = Some(LabelSelector { match_expressions: requirements, ..Default::default() });
        let request = WatchRequest { selectors: vec![Selector { labels, ..Default::default() }], ..Default::default() };
        assert_eq!(refused(&request), Some("selectors".into()));
        let known = |known: KnownObject, many| WatchRequest { known: vec![known; many], ..Default::default() };
        assert_eq!(refused(&known(KnownObject::default(), 1_000)), None, "these are told apart once they are decoded");
        assert_eq!(refused(&known(KnownObject::default(), 1_000_000)), Some("known".into()));
        let reference = Some(ObjectRef { kind: "Job".into(), name: "a".into(), ..Default::default() });
        assert_eq!(refused(&known(KnownObject { r#ref: reference, resource_version: 1 }, 100_000)), None);
    }
}
