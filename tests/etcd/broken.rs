//! An etcd that is away, slow, full or not what it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bluebird::api::v1::{Lease, WatchRequest};
use bluebird::client::{Cache, DeleteOptions};
use bluebird::error::Error;
use bluebird::testing::{Etcd, Link, Witness};
use bluebird::time::Clock;
use tokio_util::sync::CancellationToken;

use super::DEADLINE;
use super::fleet::{Fleet, config, holder, is_away, lease, leases, soon};

#[tokio::test(flavor = "multi_thread")]
async fn when_etcd_is_killed_and_starts_again_nothing_is_lost_and_nobody_has_to_relist() {
    let Some(mut fleet) = Fleet::start(2, &[]).await else { return };
    let mut witness = Witness::start(fleet.client(0), &fleet.tasks).await.unwrap();
    witness.watch("leases", fleet.client(1).clone(), vec![leases()], &fleet.tasks);
    let cache = Cache::start(fleet.client(1).clone(), vec![leases()], &fleet.tasks);
    assert!(cache.synced().await);
    let over = CancellationToken::new();
    let writers: Vec<_> = (0..8).map(|writer| write(fleet.client(writer % 2).clone(), writer, over.clone())).map(tokio_spawn).collect();
    for _ in 0..4 {
        let before = fleet.etcd.status().0;
        until(|| fleet.etcd.status().0 > before + 40).await;
        fleet.etcd.kill();
        // A read is refused; it is not answered from what is remembered.
        let refused = fleet.client(0).get::<Lease>("", "w0-0").await.unwrap_err();
        assert!(is_away(&refused), "{refused:?}");
        fleet.etcd.start_again().await;
    }
    let before = fleet.etcd.status().0;
    until(|| fleet.etcd.status().0 > before + 40).await;
    over.cancel();
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let now = soon("a list", || fleet.client(0).list_objects(leases())).await;
    let there: BTreeMap<_, _> = now.objects.iter().map(|object| (object.meta().name.clone(), object.meta().resource_version)).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|(name, revision)| there.get(*name) != Some(revision)).collect();
    assert!(lost.is_empty() && acknowledged.len() > 100, "lost of {}: {lost:?}", acknowledged.len());
    // Before the witness asks how far its watches are: to ask a quiet one is to resume it.
    let resumes = witness.resumes();
    tokio::time::timeout(DEADLINE, witness.verify(fleet.client(0))).await.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
    assert!(cache.reached(now.revision).await);
    assert_eq!((cache.relists(), cache.bridges(), resumes), (0, 0, 0), "no watch was even cut off");
    fleet.end().await;
}

/// Creates leases; returns the revisions of those that were acknowledged.
async fn write(client: bluebird::client::Client, writer: usize, over: CancellationToken) -> BTreeMap<String, u64> {
    let mut acknowledged = BTreeMap::new();
    for number in 0.. {
        if over.is_cancelled() {
            break;
        }
        let name = format!("w{writer}-{number}");
        match client.create(lease(&name, "a")).await {
            Ok(created) => drop(acknowledged.insert(name, created.metadata.unwrap().resource_version)),
            Err(error) if is_away(&error) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{name}: {error:?}"),
        }
    }
    acknowledged
}

#[allow(clippy::disallowed_methods, reason = "a test's own task, which it awaits")]
fn tokio_spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

async fn until(reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_is_cut_off_from_etcd_answers_nothing_stale_and_recovers_by_itself() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    for (round, link) in [Link::Unplugged, Link::Silent, Link::Unplugged].into_iter().enumerate() {
        let name = format!("l{round}");
        fleet.client(0).create(lease(&name, "old")).await.unwrap();
        let mut watch = fleet.client(0).watch(WatchRequest { selectors: vec![leases()], ..Default::default() }).await.unwrap();
        let first = watch.next().await.unwrap().unwrap();
        fleet.servers[0].cable.set_link(link);
        let new = fleet.client(1).update(lease(&name, "new")).await.unwrap();
        // Refused in time, that is: not left to the client's own deadline.
        for answer in [fleet.client(0).get::<Lease>("", &name).await.map(drop), fleet.client(0).update(lease(&name, "x")).await.map(drop)] {
            assert!(matches!(answer, Err(Error::NotDone(_))), "{link:?}: {answer:?}");
        }
        let listed = fleet.client(0).list::<Lease>("").await;
        assert!(listed.as_ref().is_err_and(is_away), "{link:?}: {listed:?}");
        if round == 0 {
            let silence = tokio::time::timeout(Duration::from_secs(11), watch.next()).await;
            assert!(silence.is_err(), "a bookmark would keep its reader from going elsewhere: {silence:?}");
        }
        fleet.servers[0].cable.set_link(Link::Good);
        let read = soon("a read", || fleet.client(0).get::<Lease>("", &name)).await;
        assert_eq!(read, new);
        // The watch was open all the time, has said nothing untrue, and goes on.
        let mut seen = first.revision;
        while seen < new.metadata.as_ref().unwrap().resource_version {
            let message = watch.next_within(DEADLINE).await.unwrap().unwrap();
            assert!(message.revision >= seen && message.events.len() <= 1);
            seen = message.revision;
        }
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_happens_once_or_never() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    let begin = fleet.client(1).list_objects(leases()).await.unwrap().revision;
    for name in 0..8 {
        fleet.client(1).create(lease(&format!("l{name}"), "first")).await.unwrap();
    }
    let over = CancellationToken::new();
    let (client, fleet) = (fleet.client(0).clone(), Arc::new(fleet));
    let writers: Vec<_> = (0..8usize)
        .map(|writer| {
            let (client, over) = (client.clone(), over.clone());
            tokio_spawn(async move {
                let mut tries = BTreeMap::new();
                for attempt in 0.. {
                    if over.is_cancelled() {
                        break;
                    }
                    let holder = format!("{writer}-{attempt}");
                    let answer = client.update(lease(&format!("l{writer}"), &holder)).await;
                    tries.insert(holder, answer);
                }
                tries
            })
        })
        .collect();
    for _ in 0..60 {
        let before = fleet.etcd.status().0;
        fleet.servers[0].cable.cut();
        let _ = tokio::time::timeout(Duration::from_millis(500), until(|| fleet.etcd.status().0 > before + 5)).await;
    }
    over.cancel();
    let mut tries = BTreeMap::new();
    for writer in writers {
        tries.extend(writer.await.unwrap());
    }
    let end = fleet.client(1).list_objects(leases()).await.unwrap().revision;
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    let mut watch =
        fleet.client(1).watch(WatchRequest { selectors: vec![leases()], from_revision: begin.0, ..Default::default() }).await.unwrap();
    loop {
        let message = watch.next_within(DEADLINE).await.unwrap().unwrap();
        for event in message.events {
            let lease: Lease = bluebird::api::Resource::from_object(event.object.unwrap()).unwrap();
            *done.entry(holder(&lease).to_owned()).or_default() += 1;
        }
        if message.revision >= end.0 {
            break;
        }
    }
    let (mut acknowledged, mut open) = (0, 0);
    for (holder, answer) in &tries {
        let times = done.get(holder).copied().unwrap_or(0);
        match answer {
            Ok(_) => acknowledged += 1,
            Err(Error::Unavailable(_)) => open += 1,
            Err(Error::NotDone(_)) => {}
            Err(error) => panic!("{holder}: {error:?}"),
        }
        let fits = match answer {
            Ok(_) => times == 1,
            Err(Error::NotDone(_)) => times == 0,
            Err(_) => times <= 1,
        };
        assert!(fits, "{holder} was done {times} times, and the answer was {answer:?}");
    }
    println!("{acknowledged} acknowledged, {open} open, of {}", tries.len());
    assert!(acknowledged > 20 && open > 0, "{acknowledged} acknowledged, {open} open");
    Arc::into_inner(fleet).expect("the writers have ended").end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_space_is_read_only_until_there_is_space_again() {
    let quota = (16 * 1024 * 1024).to_string();
    let Some(mut fleet) = Fleet::start(1, &["--quota-backend-bytes", &quota]).await else { return };
    let client = fleet.client(0).clone();
    client.create(lease("small", "a")).await.unwrap();
    let mut large = lease("large", "a");
    large.metadata.get_or_insert_default().annotations.insert("padding".into(), "x".repeat(200_000));
    client.create(large.clone()).await.unwrap();
    let refused = loop {
        match client.update(large.clone()).await {
            Ok(_) => large.spec.get_or_insert_default().holder_identity.push('a'),
            Err(error) => break error,
        }
    };
    let says = |error: &Error| matches!(error, Error::Exhausted { message, retry_after: Some(_) } if message.contains("alarm disarm"));
    assert!(says(&refused), "{refused:?}");
    assert!(says(&client.create(lease("other", "a")).await.unwrap_err()));
    assert_eq!(holder(&client.get::<Lease>("", "small").await.unwrap()), "a");
    assert!(matches!(client.get::<Lease>("", "other").await, Err(Error::NotFound(_))));

    let revision = fleet.etcd.status().0.to_string();
    assert!(fleet.etcd.control(&["compact", &revision]).status.success());
    assert!(fleet.etcd.control(&["defrag"]).status.success());
    assert!(fleet.etcd.control(&["alarm", "disarm"]).status.success());
    soon("a write", || client.create(lease("other", "a"))).await;
    soon("a delete", || client.delete::<Lease>("", "large", DeleteOptions::default())).await;
    fleet.etcd.restart_with(&[]).await;
    soon("a write", || client.update(lease("small", "b"))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_member_fails_another_one_is_asked() {
    let Some(mut etcd) = Etcd::start_members(3, &[]).await else { return };
    let mut config = bluebird::apiserver::Config::new("/nowhere", bluebird::apiserver::Listen::LOCAL);
    config.etcd = Some(bluebird::apiserver::EtcdOptions::new(etcd.addresses().iter().map(ToString::to_string)));
    let apiserver = bluebird::apiserver::start(config, Clock::system()).await.unwrap_or_else(|error| panic!("{error}"));
    let client = bluebird::client::Client::new(&apiserver.url()).unwrap();
    let tasks = bluebird::tasks::Tasks::new(CancellationToken::new());
    let witness = Witness::start(&client, &tasks).await.unwrap();
    for member in [0, 1, 2, 0] {
        etcd.kill_member(member);
        for number in 0..5 {
            let name = format!("m{member}-{number}");
            soon("a write", || async {
                match client.create(lease(&name, "a")).await {
                    Err(Error::AlreadyExists(_)) => client.update(lease(&name, "b")).await,
                    answer => answer,
                }
            })
            .await;
            soon("a read", || client.get::<Lease>("", &name)).await;
        }
        etcd.start_again().await;
    }
    // Before the witness asks how far its watches are: to ask a quiet one is to resume it.
    assert_eq!(witness.resumes(), 0);
    tokio::time::timeout(DEADLINE, witness.verify(&client)).await.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
    tasks.shutdown(Duration::from_secs(2)).await;
    apiserver.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_has_lost_its_data_ends_the_store_instead_of_misleading_anybody() {
    let Some(mut fleet) = Fleet::start(1, &[]).await else { return };
    for number in 0..20 {
        fleet.client(0).create(lease(&format!("l{number}"), "a")).await.unwrap();
    }
    let mut watch = fleet.client(0).watch(WatchRequest::default()).await.unwrap();
    watch.next().await.unwrap();
    fleet.etcd.start_empty().await;
    let says =
        |error: &Error| matches!(error, Error::NotDone(why) if why.contains("restored from a backup") || why.contains("etcd cluster"));
    let told = async {
        loop {
            let error = fleet.client(0).get::<Lease>("", "l0").await.expect_err("there is none");
            if says(&error) {
                return;
            }
            assert!(is_away(&error), "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("it is noticed");
    let ended = tokio::time::timeout(DEADLINE, async { while let Ok(Some(_)) = watch.next().await {} }).await;
    assert!(ended.is_ok(), "watches end");
    fleet.end().await;
}

/// At how many moments of a start.
const ROUNDS: u32 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_starts_even_if_its_etcd_is_away_for_a_moment_meanwhile() {
    let Some(fleet) = Fleet::start(0, &[]).await else { return };
    let cable = fleet.cable().await;
    let begun = Instant::now();
    bluebird::apiserver::start(config(&cable), Clock::system()).await.unwrap_or_else(|error| panic!("{error}")).shutdown().await;
    let whole = begun.elapsed();
    for round in 0..ROUNDS {
        let away = async {
            // Anywhere in what a start does: it reads the state, follows it, and writes.
            tokio::time::sleep(whole * round / ROUNDS).await;
            cable.set_link(Link::Unplugged);
            tokio::time::sleep(Duration::from_millis(200)).await;
            cable.set_link(Link::Good);
        };
        let (started, ()) = tokio::join!(bluebird::apiserver::start(config(&cable), Clock::system()), away);
        started.unwrap_or_else(|error| panic!("round {round}: {error}")).shutdown().await;
    }
    fleet.end().await;
}
