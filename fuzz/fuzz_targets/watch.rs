//! What both ends of a watch are sent, and the small texts and details around requests.
#![no_main]

use bluebird::api::v1::{LabelSelector, Object, Selector, WatchRequest, WatchResponse};
use bluebird::api::{Matcher, parse_label_selector};
use bluebird::apiserver::fuzzing::is_continue_token;
use bluebird::client::fuzzing::{Told, follow};
use bluebird::error::Error;
use bluebird_fuzz::{seeds, split};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tonic::{Code, Status};

fuzz_target!(init: seeds::write(seeds::watch), |bytes: &[u8]| {
    let Some((what, bytes)) = bytes.split_first() else { return };
    match what % 5 {
        0 => drop(follow(told(bytes))),
        1 => request(bytes),
        2 => error(bytes),
        3 => drop(str::from_utf8(bytes).map(is_continue_token)),
        _ => drop(str::from_utf8(bytes).map(labels)),
    }
});

/// Messages of a server, and the ends of its streams.
fn told(mut bytes: &[u8]) -> Vec<Told> {
    let mut told = Vec::new();
    while !bytes.is_empty() {
        let [next, rest] = split(bytes);
        bytes = rest;
        told.push(match WatchResponse::decode(next) {
            Ok(message) => Told::Message(message),
            Err(_) => Told::End(status(next).into()),
        });
    }
    told
}

fn request(bytes: &[u8]) {
    let [request, object] = split(bytes);
    let (Ok(request), Ok(object)) = (WatchRequest::decode(request), Object::decode(object)) else { return };
    for selector in &request.selectors {
        if let (Ok(matcher), Some(key)) = (Matcher::new(selector, "selector"), object.key()) {
            let _ = matcher.matches(&key, &object);
        }
    }
}

/// An error keeps its meaning on its way over the wire, whatever details a server sends.
fn error(bytes: &[u8]) {
    let error = Error::from(status(bytes));
    let again = Error::from(Status::from(error.clone()));
    assert_eq!(again, Error::from(Status::from(again.clone())), "{error:?}");
    let _ = error.to_string();
}

fn status(bytes: &[u8]) -> Status {
    let (code, details) = bytes.split_first().unwrap_or((&0, &[]));
    Status::with_details(Code::from(i32::from(*code)), "said so", details.to_vec().into())
}

fn labels(text: &str) {
    let parsed = parse_label_selector(text);
    let selector = |labels: LabelSelector| Selector { labels: Some(labels), ..Default::default() };
    if let Ok(labels) = parsed {
        Matcher::new(&selector(labels), "selector").expect("what is parsed can be used");
    }
}
