//! What is in etcd is compacted, or written to, by somebody else.

use bluebird::api::v1::{Lease, WatchRequest};
use bluebird::client::Cache;
use bluebird::error::Error;
use bluebird::testing::{Link, Witness};
use bluebird::time::Clock;

use super::DEADLINE;
use super::fleet::{Fleet, config, lease, leases, soon};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_behind_a_compaction_is_told_and_heals_by_difference() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    for number in 0..50 {
        fleet.client(1).create(lease(&format!("l{number}"), "a")).await.unwrap();
    }
    let cache = Cache::start(fleet.client(0).clone(), vec![leases()], &fleet.tasks);
    assert!(cache.synced().await);
    let mut watch = fleet.client(0).watch(WatchRequest { selectors: vec![leases()], ..Default::default() }).await.unwrap();
    let begin = watch.next().await.unwrap().unwrap().revision;

    fleet.servers[0].cable.set_link(Link::Unplugged);
    for number in 0..20 {
        fleet.client(1).update(lease(&format!("l{number}"), "b")).await.unwrap();
    }
    fleet.client(1).delete::<Lease>("", "l49", Default::default()).await.unwrap();
    let revision = fleet.etcd.status().0.to_string();
    assert!(fleet.etcd.control(&["compact", &revision]).status.success());
    fleet.servers[0].cable.set_link(Link::Good);

    let now = soon("a list", || fleet.client(0).list_objects(leases())).await;
    assert_eq!(now.objects, fleet.client(1).list_objects(leases()).await.unwrap().objects);
    let told = loop {
        match watch.next_within(DEADLINE).await {
            Ok(Some(message)) => assert!(message.events.is_empty() && message.revision == begin, "a gap: {message:?}"),
            Ok(None) => panic!("it ended without a reason"),
            Err(error) => break error,
        }
    };
    assert!(matches!(told, Error::Compacted { requested, oldest } if requested.0 == begin && oldest == now.revision), "{told:?}");
    assert!(tokio::time::timeout(DEADLINE, cache.reached(now.revision)).await.unwrap());
    let cached: Vec<_> = cache.keys().iter().filter_map(|key| cache.get_object(key)).map(|object| (*object).clone()).collect();
    assert_eq!(cached, now.objects);
    assert_eq!((cache.relists(), cache.bridges()), (0, 1));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_took_nothing_of_this_cluster_is_not_noticed() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    let witness = Witness::start(fleet.client(0), &fleet.tasks).await.unwrap();
    let mut watch = fleet.client(0).watch(WatchRequest { selectors: vec![leases()], ..Default::default() }).await.unwrap();
    fleet.client(1).create(lease("a", "a")).await.unwrap();
    fleet.client(0).get::<Lease>("", "a").await.unwrap();
    fleet.servers[0].cable.set_link(Link::Unplugged);
    for number in 0..20 {
        assert!(fleet.etcd.control(&["put", "/somebody/else", &number.to_string()]).status.success());
    }
    let revision = fleet.etcd.status().0.to_string();
    assert!(fleet.etcd.control(&["compact", &revision]).status.success());
    fleet.servers[0].cable.set_link(Link::Good);
    fleet.client(1).create(lease("b", "a")).await.unwrap();
    soon("a read", || fleet.client(0).get::<Lease>("", "b")).await;
    tokio::time::timeout(DEADLINE, witness.verify(fleet.client(0))).await.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
    let mut watched = Vec::new();
    while watched.len() < 2 {
        let message = watch.next_within(DEADLINE).await.unwrap().expect("it is open all the time");
        watched.extend(message.events.into_iter().filter_map(|event| Some(event.object?.key()?.name().to_owned())));
    }
    assert_eq!(watched, ["a", "b"]);
    // One that starts now has no history, and the same revisions.
    let third = fleet.server(Clock::system(), |_| {}).await;
    let [here, there] = [&third.client, fleet.client(1)].map(|client| client.list_objects(leases()));
    assert_eq!(here.await.unwrap().objects, there.await.unwrap().objects);
    third.apiserver.shutdown().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_bluebird_did_not_write_ends_the_store_and_is_refused_by_the_next() {
    let Some(fleet) = Fleet::start(1, &[]).await else { return };
    fleet.client(0).create(lease("a", "a")).await.unwrap();
    assert!(fleet.etcd.control(&["put", "/bluebird/objects/mine", "x"]).status.success());
    let told = tokio::time::timeout(DEADLINE, async {
        loop {
            match fleet.client(0).get::<Lease>("", "a").await {
                Err(Error::NotDone(why)) if why.contains("not written by BlueBird") => return,
                Err(error) => panic!("{error:?}"),
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    });
    told.await.expect("it is noticed");
    let refused = bluebird::apiserver::start(config(&fleet.servers[0].cable), Clock::system()).await.unwrap_err().to_string();
    assert!(refused.contains("/bluebird/objects/mine") && refused.contains("etcd://"), "{refused}");

    assert!(fleet.etcd.control(&["del", "/bluebird/objects/mine"]).status.success());
    let revision = fleet.etcd.status().0.to_string();
    assert!(fleet.etcd.control(&["compact", &revision]).status.success());
    let next = fleet.server(Clock::system(), |_| {}).await;
    next.client.get::<Lease>("", "a").await.unwrap();
    next.apiserver.shutdown().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_others_below_the_prefix_are_left_alone_and_count_for_nothing() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    let before = fleet.client(0).list_objects(leases()).await.unwrap().revision;
    for words in [["put", "/bluebird/mine", "x"], ["put", "/bluebird/mine", "y"], ["del", "/bluebird/mine", "--prefix"]] {
        assert!(fleet.etcd.control(&words).status.success());
    }
    for server in 0..2 {
        let listed = fleet.client(server).list_objects(leases()).await.unwrap();
        assert!(listed.objects.is_empty() && listed.revision >= before, "{listed:?}");
    }
    let last = fleet.client(0).create(lease("a", "a")).await.unwrap().metadata.unwrap().resource_version;
    assert!(last > before.0 + 3);
    for server in 0..2 {
        // From a revision that was never one of this cluster's.
        let request = WatchRequest { selectors: vec![leases()], from_revision: before.0 + 1, ..Default::default() };
        let mut watch = fleet.client(server).watch(request).await.unwrap();
        let message = watch.next_within(DEADLINE).await.unwrap().unwrap();
        let seen: Vec<_> = message.events.iter().filter_map(|event| Some(event.object.as_ref()?.meta().resource_version)).collect();
        assert_eq!(seen, [last]);
    }
    fleet.end().await;
}
