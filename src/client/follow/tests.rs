use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::contents::Contents;
use super::super::fake::History;
use super::*;

/// What may happen while a cache follows a server.
#[derive(Clone, Debug)]
enum Happening {
    Put(u8),
    Delete(u8),
    Compact,
    /// The next message arrives.
    Deliver,
    /// The connection ends, with what was under way.
    Disconnect,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0..6u8).prop_map(Happening::Put),
        2 => (0..6u8).prop_map(Happening::Delete),
        1 => Just(Happening::Compact),
        6 => Just(Happening::Deliver),
        2 => Just(Happening::Disconnect),
    ]
}

/// A cache, its server, and what is under way between them.
#[derive(Default)]
struct Scene {
    history: History,
    contents: Contents,
    connection: Option<Connection>,
}

#[derive(Default)]
struct Connection {
    under_way: VecDeque<WatchResponse>,
    sent: u64,
}

impl Scene {
    fn deliver(&mut self, follow: &mut Follow) {
        let history = &self.history;
        let Some(connection) = &mut self.connection else {
            match history.answer(&follow.request(&[], self.contents.objects())) {
                Ok(messages) => self.connection = Some(Connection { under_way: messages.into(), sent: history.revision().0 }),
                Err(error) => follow.failed(&error),
            }
            return;
        };
        connection.under_way.extend(history.after(connection.sent));
        connection.sent = history.revision().0;
        if let Some(message) = connection.under_way.pop_front() {
            let step = follow.message(message).expect("the server never goes back");
            self.contents.apply(step, &Arc::default());
        }
    }

    fn disconnect(&mut self, follow: &mut Follow) {
        if self.connection.take().is_some() {
            follow.failed(&Error::Unavailable("cut".into()));
        }
    }

    /// What readers see is what the server had at that revision: never a half state, never one with a gap.
    fn check(&self) {
        if let Some(revision) = self.contents.revision() {
            assert_eq!(*self.contents.objects(), self.history.state_at(revision).into_iter().collect());
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_cut_and_compacted_readers_see_a_state_that_the_server_had(happenings in prop::collection::vec(happening(), 0..80)) {
        let (mut scene, mut follow) = (Scene::default(), Follow::new(Keep::default()));
        for happening in happenings {
            match happening {
                Happening::Put(name) => scene.history.put(&format!("p{name}")),
                Happening::Delete(name) => scene.history.delete(&format!("p{name}")),
                Happening::Compact => scene.history.compact(),
                Happening::Deliver => scene.deliver(&mut follow),
                Happening::Disconnect => scene.disconnect(&mut follow),
            }
            scene.check();
        }
        scene.history.put("last");
        scene.disconnect(&mut follow);
        for _ in 0..200 {
            scene.deliver(&mut follow);
        }
        prop_assert_eq!(scene.contents.revision(), Some(scene.history.revision()));
        scene.check();
    }
}

fn synced_at(revision: u64) -> WatchResponse {
    WatchResponse { revision, synced: true, ..Default::default() }
}

#[test]
fn an_empty_server_is_not_resumed_since_revision_zero_would_mean_from_now_on() {
    let mut follow = Follow::new(Keep::default());
    assert_eq!(follow.message(synced_at(0)), Ok(Step::Replace(Objects::default(), Revision::ZERO)));
    follow.failed(&Error::Cancelled);
    assert!(follow.request(&[], &Objects::default()).send_initial);
}

#[test]
fn a_change_right_after_an_empty_state_is_not_held_back() {
    let mut history = History::default();
    let mut follow = Follow::new(Keep::default());
    follow.message(synced_at(0)).expect("an empty state");
    history.put("web");
    let step = follow.message(history.after(0).remove(0)).expect("a change");
    assert_eq!(
        step,
        Step::Advance(history.state_at(Revision(1)).into_iter().map(|(key, object)| (key, Some(object))).collect(), Revision(1))
    );
}

#[test]
fn a_broken_connection_is_resumed_at_the_last_revision() {
    let mut follow = Follow::new(Keep::default());
    follow.message(synced_at(7)).expect("the state");
    follow.message(WatchResponse { revision: 9, ..Default::default() }).expect("a bookmark");
    follow.failed(&Error::Unavailable("cut".into()));
    let request = follow.request(&[], &Objects::default());
    assert_eq!((request.from_revision, request.send_initial), (9, false));
}

fn compacted() -> Error {
    Error::Compacted { requested: Revision(7), oldest: Revision(9) }
}

/// A cache that holds a pod at revision 7 and can't be resumed from there.
fn comparing() -> (Follow, Objects) {
    let mut history = History::default();
    history.put("web");
    let held = history.state_at(Revision(1)).into_iter().collect();
    let mut follow = Follow::new(Keep::default());
    follow.message(synced_at(7)).expect("the state");
    follow.failed(&compacted());
    (follow, held)
}

#[test]
fn when_the_history_is_gone_what_is_held_is_told_until_the_difference_is_whole() {
    let (mut follow, held) = comparing();
    for _ in 0..2 {
        let request = follow.request(&[], &held);
        assert_eq!((request.from_revision, request.send_initial, request.known.len()), (0, true, 1));
        assert_eq!(request.known[0].resource_version, 1);
        assert_eq!(follow.message(WatchResponse::default()), Ok(Step::Wait));
        follow.failed(&Error::Unavailable("cut".into()));
    }
    follow.request(&[], &held);
    assert_eq!(follow.message(synced_at(9)), Ok(Step::Bridge(Vec::new(), Revision(9))));
    follow.failed(&Error::Unavailable("cut".into()));
    assert_eq!(follow.request(&[], &held).from_revision, 9);
}

#[test]
fn a_server_that_has_lost_its_past_is_read_anew_without_telling_it_what_is_held() {
    let (mut follow, held) = comparing();
    let error = follow.message(synced_at(6)).expect_err("six after seven");
    assert_eq!(error, Error::Future { requested: Revision(7), current: Revision(6) });
    follow.failed(&error);
    let request = follow.request(&[], &held);
    assert!(request.send_initial && request.known.is_empty());
}

#[test]
fn a_server_that_does_not_take_what_is_held_is_read_anew() {
    let (mut follow, held) = comparing();
    follow.failed(&Error::invalid("known", "is not supported yet"));
    let request = follow.request(&[], &held);
    assert!(request.send_initial && request.known.is_empty());
}

#[test]
fn what_is_held_is_told_only_up_to_a_limit() {
    let (_, held) = comparing();
    let request = WatchRequest { known: describe(held.versions(), usize::MAX).expect("no limit"), ..Default::default() };
    let bytes = prost::Message::encoded_len(&request);
    assert!(describe(held.versions(), bytes).is_some() && describe(held.versions(), bytes - 1).is_none());
}

#[test]
fn a_server_that_goes_back_in_time_is_read_anew() {
    let mut follow = Follow::new(Keep::default());
    follow.message(synced_at(7)).expect("the state");
    let error = follow.message(WatchResponse { revision: 6, ..Default::default() }).expect_err("six after seven");
    assert_eq!(error, Error::Future { requested: Revision(7), current: Revision(6) });
    follow.failed(&error);
    assert!(follow.request(&[], &Objects::default()).send_initial);
}

#[test]
fn objects_of_unknown_kinds_are_skipped() {
    let mut follow = Follow::new(Keep::default());
    let unknown = Event { r#type: event::Type::Added.into(), object: Some(Object { kind: None }) };
    let step = follow.message(WatchResponse { events: vec![unknown], revision: 3, synced: true });
    assert_eq!(step, Ok(Step::Replace(Objects::default(), Revision(3))));
}
