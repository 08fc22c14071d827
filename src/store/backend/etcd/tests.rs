//! What only a store on etcd has to face.

use std::net::SocketAddr;
use std::pin::pin;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;
use crate::store::fixtures::{delete, large_pod, pod, pod_key, put, transaction};
use crate::store::{Condition, HistoryLimits, Snapshot, Store};
use crate::testing::{Cable, Link};
use crate::time::Clock;

/// How long anything may take that should take a moment.
const DEADLINE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options { history: HistoryLimits::default(), clock: Clock::system() }
}

fn members(addresses: impl IntoIterator<Item = SocketAddr>) -> EtcdOptions {
    EtcdOptions::new(addresses.into_iter().map(|address| address.to_string()))
}

fn through(cable: &Cable) -> EtcdOptions {
    EtcdOptions::new([cable.url().trim_start_matches("http://").to_owned()])
}

async fn open(etcd: &EtcdOptions) -> Store {
    Store::etcd(etcd, options()).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A backend that hears of nothing.
fn unfollowed(etcd: &EtcdOptions) -> Etcd {
    let feed = Feed::new(Snapshot::default(), History::new(HistoryLimits::default(), Revision::ZERO));
    let kv = etcd.connect().expect("addresses");
    let shared = Arc::new(Shared::new(kv, etcd.keys(), "c".to_owned(), HistoryLimits::default(), Clock::system(), feed));
    let (tip, asks) = Tip::new(Arc::clone(&shared));
    let tasks = Tasks::new(shared.ends.clone());
    tasks.spawn("etcd tip", until_end(shared.ends.clone(), asks));
    Etcd { shared, tip, tasks }
}

/// The reason for which a store has ended.
async fn end_of(store: &Store) -> String {
    let ended = async {
        while !store.feed().is_closed() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("it ends");
    store.current().await.expect_err("it has ended").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_space_runs_out_nothing_is_there_of_which_it_was_said_that_it_was_not_written() {
    let quota = (16 * 1024 * 1024).to_string();
    let Some(etcd) = crate::testing::Etcd::start(&["--quota-backend-bytes", &quota]).await else { return };
    let store = open(&members(etcd.addresses())).await;
    let create = |name: String| {
        let write = Write::Put { object: large_pod(&name, 200_000), condition: Condition::Absent };
        let store = &store;
        async move { (pod_key(&name), store.commit(transaction([write])).await) }
    };
    let mut answers = Vec::new();
    for round in 0..100 {
        answers.extend(join_all((0..16).map(|number| create(format!("p{round}-{number}")))).await);
        if answers.iter().any(|(_, answer)| answer.is_err()) {
            break;
        }
    }
    let state = store.current().await.unwrap();
    let mut refused = 0;
    for (key, answer) in &answers {
        match answer {
            Ok(committed) => assert_eq!(state.get(key).map(|stored| stored.revision), Some(committed.revision), "{key}"),
            Err(Error::Exhausted { message, retry_after: Some(_) }) => assert!(state.get(key).is_none(), "{key}: {message}"),
            Err(Error::Unavailable(why)) => assert!(why.contains("alarm disarm"), "{key}: {why}"),
            Err(error) => panic!("{key}: {error:?}"),
        }
        refused += usize::from(answer.is_err());
    }
    assert!(refused > 0);
    let (key, answer) = create("last".to_owned()).await;
    assert!(matches!(answer, Err(Error::Exhausted { .. })) && store.current().await.unwrap().get(&key).is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_at_the_very_revision_at_which_etcd_was_compacted_is_not_missed() {
    let Some(etcd) = crate::testing::Etcd::start(&[]).await else { return };
    let cable = Cable::new(etcd.addresses()[0]).await.unwrap();
    let (behind, ahead) = (open(&through(&cable)).await, open(&members(etcd.addresses())).await);
    for name in ["a", "b"] {
        ahead.commit(transaction([put(pod(name, "", &[]))])).await.unwrap();
    }
    assert_eq!(behind.current().await.unwrap().len(), 2);
    cable.set_link(Link::Unplugged);
    let deleted = ahead.commit(transaction([delete("a")])).await.unwrap().revision;
    assert!(etcd.control(&["compact", "--physical", &deleted.to_string()]).status.success());
    ahead.commit(transaction([put(pod("c", "", &[]))])).await.unwrap();
    cable.set_link(Link::Good);
    let names = |state: Snapshot| state.iter().map(|stored| stored.key.clone()).collect::<Vec<_>>();
    let caught_up = async {
        loop {
            match behind.current().await {
                Ok(state) => return state,
                Err(error) => assert!(matches!(error, Error::NotDone(_)), "{error:?}"),
            }
        }
    };
    let state = tokio::time::timeout(DEADLINE, caught_up).await.unwrap();
    assert_eq!(names(state), names(ahead.current().await.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_etcd_says_that_it_has_written_is_open_and_ends_the_store() {
    let Some(first) = crate::testing::Etcd::start(&[]).await else { return };
    let Some(second) = crate::testing::Etcd::start(&[]).await else { return };
    let etcd = unfollowed(&members(first.addresses().into_iter().chain(second.addresses())));
    create(&etcd.shared.kv, &etcd.shared.keys, Clock::system().now()).await.unwrap();
    etcd.shared.kv.failed(0);
    let answer = etcd.commit(transaction([put(pod("a", "", &[]))])).await;
    assert!(matches!(&answer, Err(Error::Unavailable(why)) if why.contains("may or may not")), "{answer:?}");
    assert!(etcd.shared.ends.is_cancelled() && etcd.shared.ended().contains("must be of one etcd"));
    let written = second.control(&["get", "--prefix", "--keys-only", "/bluebird/objects/"]).stdout;
    assert!(String::from_utf8_lossy(&written).contains("default"), "it was written there");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_keys_were_removed_a_new_cluster_begins_where_the_old_one_ended() {
    let Some(etcd) = crate::testing::Etcd::start(&[]).await else { return };
    let old = open(&members(etcd.addresses())).await;
    let last = old.commit(transaction([put(pod("a", "", &[]))])).await.unwrap().revision;
    assert!(etcd.control(&["del", "--prefix", "/bluebird/"]).status.success());
    assert!(end_of(&old).await.contains("the cluster's own keys"));
    for objects in 0..3 {
        let new = open(&members(etcd.addresses())).await;
        assert_eq!(new.snapshot().len(), objects);
        assert!(new.cluster_id() != old.cluster_id() && new.feed().oldest() > last);
        new.commit(transaction([put(pod(&format!("n{objects}"), "", &[]))])).await.unwrap();
        new.close().await;
    }
}

/// The store was at the last revision when it was cut off.
async fn cut_off_from_an_etcd_that_is_empty_now() -> Option<(crate::testing::Etcd, Cable, Store, Revision)> {
    let mut etcd = crate::testing::Etcd::start(&[]).await?;
    let cable = Cable::new(etcd.addresses()[0]).await.unwrap();
    let store = open(&through(&cable)).await;
    let mut last = Revision::ZERO;
    for _ in 0..20 {
        last = store.commit(transaction([put(pod("a", "", &[]))])).await.unwrap().revision;
    }
    cable.set_link(Link::Unplugged);
    etcd.start_empty().await;
    Some((etcd, cable, store, last))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_lost_its_data_and_was_overtaken_while_nobody_looked_is_noticed() {
    let Some((etcd, cable, store, last)) = cut_off_from_an_etcd_that_is_empty_now().await else { return };
    let other = open(&members(etcd.addresses())).await;
    while other.commit(transaction([put(pod("b", "", &[]))])).await.unwrap().revision <= last {}
    cable.set_link(Link::Good);
    let why = end_of(&store).await;
    assert!(why.contains("restored from a backup"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_was_restored_and_compacted_is_not_taken_for_the_one_before() {
    let Some((etcd, cable, store, last)) = cut_off_from_an_etcd_that_is_empty_now().await else { return };
    // It has less of the cluster than was seen, and more revisions, which are gone but for the last one.
    let other = open(&members(etcd.addresses())).await;
    other.commit(transaction([put(pod("b", "", &[]))])).await.unwrap();
    let etcd = unfollowed(&members(etcd.addresses()));
    let put = txn::creation(&keys::Keys::new("/other/"), &keys::ClusterRow::default(), Clock::system().now());
    let mut now = 0;
    while now <= last.0.cast_signed() + 10 {
        let response = etcd.shared.kv.txn(rpc::TxnRequest { compare: Vec::new(), ..put.clone() }).await.unwrap();
        now = response.header.unwrap().revision;
    }
    etcd.shared.kv.compact(now).await.unwrap();
    cable.set_link(Link::Good);
    let why = end_of(&store).await;
    assert!(why.contains("restored from a backup"), "{why}");
}

/// How many revisions those who compact leave: enough for a look at everything, and far less than what the history would want.
const KEPT: i64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn the_state_can_be_read_while_others_compact_all_the_time() {
    let Some(etcd) = crate::testing::Etcd::start(&[]).await else { return };
    let store = open(&members(etcd.addresses())).await;
    for batch in 0..40 {
        store.commit(transaction((0..100).map(|number| put(pod(&format!("p{batch}-{number}"), "", &[]))))).await.unwrap();
    }
    let etcd = unfollowed(&members(etcd.addresses()));
    let Shared { kv, keys: ours, .. } = &*etcd.shared;
    let somebody_else_writes = async || {
        let put = txn::creation(&keys::Keys::new("/other/"), &keys::ClusterRow::default(), Clock::system().now());
        kv.txn(rpc::TxnRequest { compare: Vec::new(), ..put }).await.unwrap().header.unwrap().revision
    };
    for _ in 0..KEPT {
        somebody_else_writes().await;
    }
    let compact = async || kv.compact(somebody_else_writes().await - KEPT).await.unwrap();
    compact().await;
    let compacts = async {
        loop {
            compact().await;
        }
    };
    let loads = tokio::time::timeout(DEADLINE, load(kv, ours, 100_000, 0));
    let loaded = tokio::select! {
        loaded = loads => loaded.expect("it succeeds in the end").unwrap(),
        () = compacts => unreachable!("it goes on"),
    };
    assert_eq!(loaded.state.len(), 4000);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_not_ended_because_somebody_waits_in_vain_while_changes_arrive() {
    let etcd = unfollowed(&EtcdOptions::new(["127.0.0.1:1".to_owned()]));
    let arrives = async {
        tokio::time::sleep(ARRIVE / 2).await;
        let mut state = Snapshot::default();
        state.set_revision(Revision(5));
        etcd.shared.feed.publish(state, Vec::new());
    };
    let mut rung = pin!(etcd.shared.stalled.notified());
    let (waited, ()) = tokio::join!(etcd.arrive(Revision(9)), arrives);
    assert_eq!(waited.unwrap_err(), "this apiserver is behind etcd: it has heard of revision 5, not yet of 9");
    assert!(rung.as_mut().now_or_never().is_none());
    etcd.arrive(Revision(9)).await.unwrap_err();
    assert!(rung.now_or_never().is_some());
    assert!(etcd.shared.stalled.notified().now_or_never().is_none(), "the next watch is not ended by that");
}
