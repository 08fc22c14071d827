use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{Home, commit, put_if};
use crate::api::v1::{Object, event::Type};
use crate::api::{LabelView, MAX_OBJECT_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OBJECTS, Revision};
use crate::error::{Error, Result};
use crate::store::fixtures::{contents, delete, large_pod, pod, pod_key, put, service};
use crate::store::{Committed, Condition, Snapshot, Store, Transaction, View, Write};

pub(super) async fn a_transaction_is_one_revision_and_every_object_in_it_carries_it(home: Home) {
    let store = home.open().await;
    let first = commit(&store, [put(pod("a", "", &[])), put(pod("b", "", &[]))]).await.unwrap();
    let second = commit(&store, [put(pod("b", "n", &[])), put(service("s")), delete("a")]).await.unwrap();
    assert!(first.revision < second.revision);
    for object in second.objects.iter().map(|stored| stored.as_ref().unwrap()) {
        assert_eq!((object.revision, object.decode().meta().resource_version), (second.revision, second.revision.0));
    }
    let snapshot = store.snapshot();
    assert_eq!((snapshot.revision(), snapshot.len()), (second.revision, 2));
    assert_eq!(snapshot.get(&pod_key("b")), second.objects[0].as_ref());
    assert_eq!(snapshot.get(&pod_key("a")), None);
    let last = second.objects[2].as_ref().unwrap().decode();
    assert_eq!((last.meta().name.as_str(), last.meta().resource_version), ("a", second.revision.0));
}

pub(super) async fn a_snapshot_never_changes_and_is_in_key_order(home: Home) {
    let store = home.open().await;
    let mut last = Revision::ZERO;
    for name in ["c", "a", "b"] {
        last = commit(&store, [put(pod(name, "", &[]))]).await.unwrap().revision;
    }
    let before = store.snapshot();
    commit(&store, [delete("a"), put(pod("b", "n", &[])), put(service("s"))]).await.unwrap();
    let names = |snapshot: &Snapshot| snapshot.range(&pod_key("b")).map(|stored| stored.key.name().to_owned()).collect::<Vec<_>>();
    assert_eq!((before.revision(), before.len(), names(&before)), (last, 3, vec!["b".into(), "c".into()]));
    assert_eq!(before.get(&pod_key("b")).unwrap().decode().node_name(), "");
    assert_eq!(names(&store.snapshot()), ["b", "c", "s"]);
    assert_eq!(store.snapshot().bytes(), store.snapshot().iter().map(|stored| stored.bytes.len()).sum::<usize>());
}

pub(super) async fn conditions_hold_or_nothing_of_the_transaction_happens(home: Home) {
    let store = home.open().await;
    let first = commit(&store, [put(pod("a", "", &[]))]).await.unwrap().revision;
    let second = commit(&store, [put(pod("a", "n", &[]))]).await.unwrap().revision;
    let key = pod_key("a").to_ref();
    let b = || put(pod("b", "", &[]));
    let gone = |name| Error::not_found(&pod_key(name));
    let delete_if = |name, condition| Write::Delete { key: pod_key(name), condition };
    let require = |name, condition| Write::Require { key: pod_key(name), condition };
    let conflict = |expected| Error::Conflict { object: key.clone(), expected, actual: second };
    let exists = Error::AlreadyExists(key.clone());
    let cases = [
        (put_if(pod("a", "", &[]), Condition::Absent), exists.clone()),
        (put_if(pod("a", "", &[]), Condition::At(first)), conflict(first)),
        (put_if(pod("a", "", &[]), Condition::At(Revision::ZERO)), conflict(Revision::ZERO)),
        (put_if(pod("a", "", &[]), Condition::At(Revision(u64::MAX))), conflict(Revision(u64::MAX))),
        (put_if(pod("x", "", &[]), Condition::At(first)), gone("x")),
        (put_if(pod("x", "", &[]), Condition::At(Revision::ZERO)), gone("x")),
        (delete_if("a", Condition::At(first)), conflict(first)),
        (delete_if("a", Condition::Absent), exists.clone()),
        (delete_if("x", Condition::Any), gone("x")),
        (delete_if("x", Condition::Absent), gone("x")),
        (delete_if("x", Condition::At(first)), gone("x")),
        (delete_if("x", Condition::At(Revision::ZERO)), gone("x")),
        (require("x", Condition::Any), gone("x")),
        (require("x", Condition::Absent), gone("x")),
        (require("a", Condition::Absent), exists),
        (require("a", Condition::At(first)), conflict(first)),
    ];
    for (write, error) in cases {
        assert_eq!(commit(&store, [b(), write.clone()]).await.unwrap_err(), error);
        assert_eq!(commit(&store, [write]).await.unwrap_err(), error, "alone");
    }
    assert_eq!((store.snapshot().revision(), store.snapshot().len()), (second, 1));
    let holding = [put_if(pod("a", "", &[]), Condition::At(second)), put_if(pod("b", "", &[]), Condition::Absent)];
    assert!(commit(&store, holding).await.unwrap().revision > second);
}

pub(super) async fn what_is_required_may_come_in_the_same_transaction_and_must_not_go_in_it(home: Home) {
    let store = home.open().await;
    let required = || Write::Require { key: pod_key("ns"), condition: Condition::Any };
    let committed = commit(&store, [required(), put(pod("ns", "", &[])), put(pod("a", "", &[]))]).await.unwrap();
    assert_eq!(committed.objects.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(commit(&store, [required(), delete("ns")]).await.unwrap_err(), Error::not_found(&pod_key("ns")));
}

pub(super) async fn a_transaction_without_writes_is_no_revision(home: Home) {
    let store = home.open().await;
    let revision = commit(&store, [put(pod("a", "", &[]))]).await.unwrap().revision;
    assert_eq!(commit(&store, []).await.unwrap().revision, revision);
    let required = Write::Require { key: pod_key("a"), condition: Condition::At(revision) };
    assert_eq!(commit(&store, [required]).await.unwrap().revision, revision);
    assert_eq!(store.snapshot().revision(), revision);
}

pub(super) async fn what_exceeds_a_limit_is_invalid_and_says_so(home: Home) {
    let store = home.open().await;
    let invalid = |result: Result<Committed>, word: &str| {
        let Err(Error::Invalid(violations)) = result else { panic!("not invalid: {result:?}") };
        assert!(violations[0].message.contains(word), "{violations:?}");
    };
    let before = store.snapshot().revision();
    invalid(commit(&store, [put(large_pod("a", MAX_OBJECT_BYTES))]).await, "1048576");
    let too_many = (0..=MAX_TRANSACTION_OBJECTS).map(|number| put(pod(&format!("p{number}"), "", &[])));
    invalid(commit(&store, too_many).await, "101 objects");
    let large = |name| put(large_pod(name, MAX_OBJECT_BYTES - 1000));
    invalid(commit(&store, [large("a"), large("b")]).await, "1441792");
    invalid(commit(&store, [put(pod("a", "", &[])), delete("a")]).await, "named twice");
    invalid(commit(&store, [put(Default::default())]).await, "no kind");
    invalid(commit(&store, [put(pod("", "", &[]))]).await, "empty");
    assert_eq!(store.snapshot().revision(), before);
}

/// As many objects, bytes and namespaces as may be, with the longest names.
pub(super) async fn what_is_within_the_limits_is_taken_however_long_the_names(home: Home) {
    let store = home.open().await;
    let name = |prefix: &str, length: usize| format!("{prefix}{}", "x".repeat(length - prefix.len()));
    let namespace = |number: usize| {
        let mut namespace = crate::api::v1::Namespace::default();
        crate::api::Resource::meta_mut(&mut namespace).name = name(&format!("n{number}-"), 63);
        crate::api::Resource::into_object(namespace)
    };
    let namespaces: Vec<_> = (0..MAX_TRANSACTION_OBJECTS).map(namespace).collect();
    let created = commit(&store, namespaces.iter().cloned().map(put)).await.unwrap().revision;
    let mut pods: Vec<Object> = namespaces
        .iter()
        .enumerate()
        .map(|(number, namespace)| {
            let mut pod = pod(&name(&format!("p{number}-"), 253), "", &[]);
            pod.meta_mut().unwrap().namespace = namespace.meta().name.clone();
            pod
        })
        .collect();
    let room = MAX_TRANSACTION_BYTES / MAX_TRANSACTION_OBJECTS;
    for pod in &mut pods {
        let used = prost::Message::encoded_len(pod);
        pod.meta_mut().unwrap().annotations.insert("padding".into(), "x".repeat(room - used - 50));
    }
    let required = namespaces.iter().map(|namespace| Write::Require { key: namespace.key().unwrap(), condition: Condition::At(created) });
    let writes = pods.iter().cloned().map(|pod| put_if(pod, Condition::Absent)).chain(required.clone());
    let committed = commit(&store, writes.clone()).await.unwrap();
    assert_eq!(committed.objects.iter().flatten().count(), MAX_TRANSACTION_OBJECTS);
    assert_eq!(store.snapshot().len(), 2 * MAX_TRANSACTION_OBJECTS);

    // Whatever exceeds what a backend compares at once is judged all the same.
    assert_eq!(commit(&store, writes).await.unwrap_err(), Error::AlreadyExists(pods[0].key().unwrap().to_ref()));
    let changed = commit(&store, [put(namespaces[70].clone())]).await.unwrap().revision;
    let again = pods.iter().cloned().map(put).chain(required);
    let conflict = Error::Conflict { object: namespaces[70].key().unwrap().to_ref(), expected: created, actual: changed };
    assert_eq!(commit(&store, again).await.unwrap_err(), conflict);
    let deletes = pods.iter().map(|pod| Write::Delete { key: pod.key().unwrap(), condition: Condition::At(committed.revision) });
    commit(&store, deletes).await.unwrap();
    assert_eq!(store.snapshot().len(), MAX_TRANSACTION_OBJECTS);
}

/// They are sent to watches, and one revision has to fit a message.
pub(super) async fn what_is_deleted_counts_against_the_limit_whoever_wrote_it(home: Home) {
    let store = home.open().await;
    let other = match &home {
        Home::Folder(_) => store.clone(),
        Home::Etcd(_) => home.open().await,
    };
    for name in ["a", "b"] {
        commit(&other, [put(large_pod(name, MAX_OBJECT_BYTES - 1000))]).await.unwrap();
    }
    let refused = commit(&store, [delete("a"), delete("b")]).await;
    assert!(matches!(&refused, Err(Error::Invalid(violations)) if violations[0].message.contains("1441792")), "{refused:?}");
    commit(&store, [delete("a")]).await.unwrap();
    commit(&store, [delete("b"), put(pod("c", "", &[]))]).await.unwrap();
    assert_eq!(store.snapshot().len(), 1);
}

pub(super) async fn events_stand_alone_with_what_was_before_where_it_differs(home: Home) {
    let store = home.open().await;
    let begin = store.snapshot().revision();
    let lives =
        [put(pod("a", "", &[("app", "web")])), put(pod("a", "n1", &[("app", "web")])), put(pod("a", "n1", &[("app", "web")])), delete("a")];
    let mut revisions = Vec::new();
    for write in lives {
        revisions.push(commit(&store, [write]).await.unwrap().revision);
    }
    let commits = store.feed().after(begin, 10).unwrap();
    let nodes = |view: Option<&View>| view.map(|view| view.node_name().to_owned());
    let seen: Vec<_> = commits.iter().map(|commit| &commit.events[0]).collect();
    let rows: Vec<_> = seen.iter().map(|event| (event.kind(), nodes(event.view_before()), nodes(Some(event.view())))).collect();
    let node = |name: &str| Some(name.to_owned());
    assert_eq!(
        rows,
        [
            (Type::Added, None, node("")),
            (Type::Modified, node(""), node("n1")),
            (Type::Modified, node("n1"), node("n1")),
            (Type::Deleted, node("n1"), node("n1")),
        ]
    );
    for (event, revision) in seen.iter().zip(revisions) {
        let message: crate::api::v1::WatchResponse = prost::Message::decode(event.record().as_ref()).unwrap();
        let [sent] = &message.events[..] else { panic!("one record is one event") };
        assert_eq!((sent.r#type(), sent.object.as_ref().unwrap().meta().resource_version), (event.kind(), revision.0));
        assert_eq!(prost::Message::encode_to_vec(sent.object.as_ref().unwrap()), event.object());
    }
}

pub(super) async fn of_many_who_write_at_once_each_gets_its_own_revision_and_nothing_is_lost(home: Home) {
    let store = home.open().await;
    let begin = store.snapshot().revision();
    let writers = (0..64).map(|writer| {
        let store = store.clone();
        async move {
            let mut revisions = Vec::new();
            for number in 0..5 {
                revisions.push(commit(&store, [put(pod(&format!("w{writer}-{number}"), "", &[]))]).await.unwrap().revision);
            }
            assert!(revisions.is_sorted());
            revisions
        }
    });
    let mut all: Vec<_> = join_all(writers).await.concat();
    all.sort();
    let published: Vec<_> = store.feed().after(begin, 1000).unwrap().iter().map(|commit| commit.revision).collect();
    assert_eq!((all.len(), &all), (320, &published));
    let before = contents(&store.snapshot());
    store.kill();
    assert_eq!(contents(&home.open().await.snapshot()), before);
}

pub(super) async fn of_many_who_create_the_same_object_one_does(home: Home) {
    let store = home.open().await;
    let results = join_all((0..32).map(|_| commit(&store, [put_if(pod("a", "", &[]), Condition::Absent)]))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|error| matches!(error, Error::AlreadyExists(_))));
}

pub(super) async fn of_many_who_count_by_compare_and_set_each_counts_once(home: Home) {
    let store = home.open().await;
    commit(&store, [put(pod("counter", "0", &[]))]).await.unwrap();
    let count = || async {
        loop {
            let stored = store.current().await.unwrap().get(&pod_key("counter")).cloned().unwrap();
            let next = (stored.decode().node_name().parse::<u32>().unwrap() + 1).to_string();
            match commit(&store, [put_if(pod("counter", &next, &[]), Condition::At(stored.revision))]).await {
                Ok(_) => return,
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    join_all((0..20).map(|_| count())).await;
    assert_eq!(store.snapshot().get(&pod_key("counter")).unwrap().decode().node_name(), "20");
}

/// More than etcd takes, so that it can only be asked whether anything at all has changed.
pub(super) async fn a_transaction_of_many_comparisons_is_done_while_others_write_all_the_time(home: Home) {
    let store = home.open().await;
    let names: Vec<_> = (0..140).map(|number| format!("p{number}")).collect();
    let mut revision = Revision::ZERO;
    for some in names.chunks(70) {
        revision = commit(&store, some.iter().map(|name| put(pod(name, "", &[])))).await.unwrap().revision;
    }
    let over = std::sync::atomic::AtomicBool::new(false);
    let others = async {
        while !over.load(std::sync::atomic::Ordering::Relaxed) {
            commit(&store, [put(pod("other", "", &[]))]).await.unwrap();
        }
    };
    let (changed, required) = names.split_at(70);
    let ours = async {
        for round in 0..20 {
            let condition = if round == 0 { Condition::Any } else { Condition::At(revision) };
            let puts = changed.iter().map(|name| put_if(pod(name, &round.to_string(), &[]), condition));
            let requires = required.iter().map(|name| Write::Require { key: pod_key(name), condition: Condition::Any });
            revision = commit(&store, puts.chain(requires)).await.unwrap_or_else(|error| panic!("round {round}: {error:?}")).revision;
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(others, ours);
}

/// The embedded one is the measure.
pub(super) async fn both_backends_answer_the_same_to_the_same_random_transactions(home: Home) {
    let measure = Home::folder();
    let mut stores = [Numbered::new(measure.open().await), Numbered::new(home.open().await)];
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for step in 0..300 {
        let script = random_writes(&mut random);
        let mut answers = Vec::new();
        for store in &mut stores {
            answers.push(store.run(&script, &mut random.clone()).await);
        }
        random.u64(..);
        assert_eq!(answers[0], answers[1], "seed {seed}, step {step}: {script:?}");
    }
    assert_eq!(stores[0].history(), stores[1].history(), "seed {seed}");
}

/// A store whose revisions are counted from one, whatever numbers they have.
struct Numbered {
    store: Store,
    begin: Revision,
    revisions: Vec<Revision>,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Any,
    Absent,
    Current,
    Older,
}

impl Numbered {
    fn new(store: Store) -> Self {
        Self { begin: store.snapshot().revision(), store, revisions: Vec::new() }
    }

    async fn run(&mut self, script: &[(u8, String, Wanted)], random: &mut fastrand::Rng) -> String {
        let state = self.store.snapshot();
        let write = |(what, name, wanted): &(u8, String, Wanted)| {
            let key = pod_key(name);
            let condition = match wanted {
                Wanted::Any => Condition::Any,
                Wanted::Absent => Condition::Absent,
                Wanted::Current => Condition::At(state.get(&key).map_or(Revision(77_777), |stored| stored.revision)),
                Wanted::Older => Condition::At(self.revisions.first().copied().unwrap_or(Revision(77_777))),
            };
            match what {
                0..=4 => put_if(pod(name, &random.u8(..3).to_string(), &[("n", &random.u8(..3).to_string())]), condition),
                5..=7 => Write::Delete { key, condition },
                _ => Write::Require { key, condition },
            }
        };
        let writes: Vec<_> = script.iter().map(write).collect();
        match self.store.commit(Transaction { writes }).await {
            Ok(committed) => {
                if self.revisions.last() < Some(&committed.revision) && committed.revision > self.begin {
                    self.revisions.push(committed.revision);
                }
                let object = |stored: &Option<crate::store::Stored>| stored.as_ref().map(|stored| self.show(&stored.decode()));
                format!("{:?} {:?}", self.number(committed.revision), committed.objects.iter().map(object).collect::<Vec<_>>())
            }
            Err(Error::Conflict { object, expected, actual }) => {
                format!("{object:?} is not {:?} but {:?}", self.number(expected), self.number(actual))
            }
            Err(error) => format!("{error:?}"),
        }
    }

    fn number(&self, revision: Revision) -> Option<usize> {
        self.revisions.iter().position(|known| *known == revision)
    }

    fn show(&self, object: &Object) -> String {
        let mut object = object.clone();
        let meta = object.meta_mut().unwrap();
        let revision = self.number(Revision(std::mem::take(&mut meta.resource_version)));
        format!("{revision:?}: {object:?}")
    }

    fn history(&self) -> BTreeMap<usize, Vec<String>> {
        let commits = self.store.feed().after(self.begin, usize::MAX).unwrap();
        let event = |event: &crate::store::Event| {
            let object: Object = prost::Message::decode(event.object()).unwrap();
            format!("{:?} {} {:?}", event.kind(), self.show(&object), event.view_before())
        };
        commits.iter().map(|commit| (self.number(commit.revision).unwrap(), commit.events.iter().map(event).collect())).collect()
    }
}

fn random_writes(random: &mut fastrand::Rng) -> Vec<(u8, String, Wanted)> {
    let names: Vec<u8> = random.choose_multiple(0..6, 4);
    let count = random.usize(1..=4);
    let mut writes = Vec::new();
    for name in &names[..count] {
        let wanted = [Wanted::Any, Wanted::Any, Wanted::Absent, Wanted::Current, Wanted::Current, Wanted::Older][random.usize(..6)];
        writes.push((random.u8(..10), format!("p{name}"), wanted));
        if random.u8(..5) == 0 {
            writes.push((9, format!("p{name}"), Wanted::Any));
        }
    }
    writes
}
