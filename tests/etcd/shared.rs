//! What several apiservers on one etcd owe their clients.

use bluebird::api::v1::Lease;
use bluebird::client::{Cache, DeleteOptions};
use bluebird::error::Error;
use bluebird::testing::{Link, Witness};
use bluebird::time::Clock;
use futures_util::future::join_all;

use super::DEADLINE;
use super::fleet::{Fleet, config, holder, lease, leases, soon};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_through_one_apiserver_is_read_through_every_other_at_once() {
    let Some(fleet) = Fleet::start(3, &[]).await else { return };
    for round in 0..60 {
        let (writer, reader) = (round % 3, (round + 1 + round / 3 % 2) % 3);
        let name = format!("l{round}");
        let written = fleet.client(writer).create(lease(&name, "a")).await.unwrap();
        assert_eq!(fleet.client(reader).get::<Lease>("", &name).await.unwrap(), written);
        assert_eq!(fleet.client(reader).list::<Lease>("default").await.unwrap().len(), round + 1);
        let changed = fleet.client(reader).update(lease(&name, "b")).await.unwrap();
        assert_eq!(fleet.client(writer).get::<Lease>("", &name).await.unwrap(), changed);
        let again = fleet.client(writer).create(lease(&name, "c")).await.unwrap_err();
        assert!(matches!(again, Error::AlreadyExists(_)), "{again}");
    }
    fleet.client(0).delete::<Lease>("", "l0", DeleteOptions::default()).await.unwrap();
    assert!(matches!(fleet.client(1).get::<Lease>("", "l0").await, Err(Error::NotFound(_))));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_knows_what_was_written_through_another_apiserver_before_it_began() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    for round in 0..40 {
        let written = fleet.client(round % 2).create(lease(&format!("l{round}"), "a")).await.unwrap();
        let revision = written.metadata.unwrap().resource_version;
        let other = fleet.client(1 - round % 2);
        // The future of one is the present of the other.
        let request = bluebird::api::v1::WatchRequest { from_revision: revision, ..Default::default() };
        let mut resumed = other.watch(request).await.unwrap();
        drop(resumed.next_within(DEADLINE));
        let request = bluebird::api::v1::WatchRequest { send_initial: true, selectors: vec![leases()], ..Default::default() };
        let mut initial = other.watch(request).await.unwrap();
        let first = initial.next().await.unwrap().unwrap();
        assert_eq!((first.synced, first.events.len()), (true, round + 1));
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_go_on_at_the_same_revision_on_another_apiserver() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    let client = fleet.client_of_all();
    let mut witness = Witness::start(&client, &fleet.tasks).await.unwrap();
    witness.watch("leases", client.clone(), vec![leases()], &fleet.tasks);
    let cache = Cache::start(client.clone(), vec![leases()], &fleet.tasks);
    assert!(cache.synced().await);
    for round in 0..6 {
        let create = |number: usize| {
            let client = fleet.client_of_all();
            async move {
                match client.create(lease(&format!("l{round}-{number}"), "a")).await {
                    // A first attempt may have succeeded without a word.
                    Ok(_) | Err(Error::AlreadyExists(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        };
        let writing = join_all((0..40).map(|number| soon("a write", move || create(number))));
        // The watches' connections break while everybody writes, and go to the other one in turn.
        let stop = async { fleet.relays[round % 2].set_link(Link::Unplugged) };
        tokio::join!(writing, stop);
        fleet.relays[round % 2].set_link(Link::Good);
    }
    let now = client.list_objects(leases()).await.unwrap();
    assert_eq!(now.objects.len(), 240);
    tokio::time::timeout(DEADLINE, witness.verify(&client)).await.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
    assert!(cache.reached(now.revision).await);
    assert_eq!((cache.list::<Lease>().len(), cache.relists()), (240, 0));
    assert!(witness.resumes() >= 6, "{}", witness.resumes());
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_race_through_different_apiservers_exactly_one_wins() {
    let Some(fleet) = Fleet::start(2, &[]).await else { return };
    let mut current = fleet.client(0).create(lease("prize", "nobody")).await.unwrap();
    for round in 0..100 {
        let tries = (0..4).map(|player| {
            let mut wanted = current.clone();
            wanted.spec.get_or_insert_default().holder_identity = format!("{round}-{player}");
            fleet.client(player % 2).update(wanted)
        });
        let (won, lost): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        let winner = won.into_iter().next().unwrap().unwrap();
        let actual = winner.metadata.as_ref().unwrap().resource_version;
        for error in lost.into_iter().map(Result::unwrap_err) {
            assert!(matches!(&error, Error::Conflict { actual: told, .. } if told.0 == actual), "{error:?}");
        }
        for client in [fleet.client(0), fleet.client(1)] {
            assert_eq!(holder(&client.get::<Lease>("", "prize").await.unwrap()), holder(&winner));
        }
        current = winner;
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_in_one_etcd_do_not_see_each_other() {
    let Some(mut fleet) = Fleet::start(1, &[]).await else { return };
    let second = fleet.server(Clock::system(), |config| config.etcd.as_mut().unwrap().prefix = "/second/".to_owned()).await;
    fleet.servers.push(second);
    let mut witness = Witness::start(fleet.client(0), &fleet.tasks).await.unwrap();
    witness.watch("leases", fleet.client(0).clone(), vec![leases()], &fleet.tasks);
    for number in 0..20 {
        fleet.client(number % 2).create(lease(&format!("l{}", number / 2), &(number % 2).to_string())).await.unwrap();
    }
    for server in 0..2 {
        let all = fleet.client(server).list::<Lease>("default").await.unwrap();
        assert!(all.len() == 10 && all.iter().all(|lease| holder(lease) == server.to_string()), "{all:?}");
    }
    tokio::time::timeout(DEADLINE, witness.verify(fleet.client(0))).await.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_within_or_around_another_clusters_is_refused() {
    let Some(fleet) = Fleet::start(1, &[]).await else { return };
    for prefix in ["/bluebird/2/", "/", "/bluebird/objects/"] {
        let mut config = config(&fleet.servers[0].cable);
        config.etcd.as_mut().unwrap().prefix = prefix.to_owned();
        let refused = bluebird::apiserver::start(config, Clock::system()).await.unwrap_err().to_string();
        assert!(refused.contains("another cluster"), "{prefix}: {refused}");
    }
    fleet.client(0).create(lease("unharmed", "a")).await.unwrap();
    fleet.end().await;
}
