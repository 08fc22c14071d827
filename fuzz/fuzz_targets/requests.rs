//! Requests of any bytes: decided without a panic; what is stored is valid, and asking for the same once more changes nothing.
#![no_main]

use bluebird::api::v1::{DeleteRequest, Object};
use bluebird::api::{default_object, validate, validate_update};
use bluebird::apiserver::fuzzing::{Asked, Outcome, apply_new, create, decide};
use bluebird_fuzz::requests::{APPLIED, WHATS};
use bluebird_fuzz::{seeds, split};
use libfuzzer_sys::{Corpus, fuzz_target};
use prost::Message as _;

fuzz_target!(init: seeds::write(seeds::requests), |bytes: &[u8]| -> Corpus {
    let [what, old, new] = split(bytes);
    let (Ok(old), Some(what)) = (Object::decode(old), what.first()) else { return Corpus::Reject };
    check_defaults(old.clone());
    let created = if what & APPLIED == 0 { create(old) } else { apply_new(old, "first") };
    let Ok(old) = created else { return Corpus::Keep };
    assert_eq!(validate(&old), [], "what was created is invalid");
    if (what & !APPLIED) % WHATS == 0 {
        let Ok(request) = DeleteRequest::decode(new) else { return Corpus::Reject };
        check(&old, Asked::Delete(request));
        return Corpus::Keep;
    }
    let Ok(new) = Object::decode(new) else { return Corpus::Reject };
    check_defaults(new.clone());
    for violation in validate_update(&old, &new) {
        assert!(!violation.message.is_empty(), "a fault without a word at {}", violation.path);
    }
    let Some(object) = named_like(new, &old) else { return Corpus::Keep };
    check(
        &old,
        match (what & !APPLIED) % WHATS {
            1 => Asked::Update(object),
            2 => Asked::UpdateStatus(object),
            3 => Asked::Join(object),
            4 => Asked::Apply { object, manager: "first", force: false },
            5 => Asked::Apply { object, manager: "second", force: false },
            _ => Asked::Apply { object, manager: "second", force: true },
        },
    );
    Corpus::Keep
});

/// A request is about the object that it names.
fn named_like(mut new: Object, old: &Object) -> Option<Object> {
    let key = old.key().filter(|key| new.kind() == Some(key.kind()))?;
    let meta = new.meta_mut()?;
    (meta.name, meta.namespace) = (key.name().to_owned(), key.namespace().to_owned());
    Some(new)
}

fn check(old: &Object, asked: Asked) {
    let Ok(Outcome::Put(next)) = decide(old, asked.clone()) else { return };
    assert_eq!(next.key(), old.key(), "{asked:?} made another object of it");
    assert_eq!(next.meta().uid, old.meta().uid, "{asked:?} changed the uid");
    assert_eq!(validate(&next), [], "{asked:?} made it invalid");
    match decide(&next, asked.clone()) {
        Ok(Outcome::Nothing | Outcome::Remove) => {}
        again => panic!("{asked:?}, once more, made {again:?} of {next:?}"),
    }
}

fn check_defaults(mut object: Object) {
    default_object(&mut object);
    let once = object.clone();
    default_object(&mut object);
    assert_eq!(object, once, "defaults of a defaulted object");
    for violation in validate(&object) {
        assert!(!violation.message.is_empty(), "a fault without a word at {}", violation.path);
    }
}
