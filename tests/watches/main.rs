//! The seven guarantees over the wire for watches that have a hard time, with a folder and with an etcd as the store.

mod recorder;

use bluebird::api::v1::{Lease, LeaseSpec};
use bluebird::api::{Resource, Revision};
use bluebird::apiserver::EtcdOptions;
use bluebird::client::Client;
use bluebird::error::Error;
use bluebird::testing::{Etcd, TestCluster};
use bluebird::watch::Start;
use recorder::Recorder;

/// Far more than a client's window has room for is in so many of these objects.
const OBJECT_BYTES: usize = 64 * 1024;
const OBJECTS: usize = 160;
/// A history that is soon gone.
const SHORT: usize = 100;
const LONG: usize = 100_000;

/// A cluster, and what really happens in it.
struct Scene {
    cluster: TestCluster,
    truth: Recorder,
    /// Ends last.
    etcd: Option<Etcd>,
}

/// One with a folder, and one with an etcd where there is one. Their histories have so many revisions.
async fn scenes(history: usize) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for etcd in [None, Etcd::start(&[]).await] {
        if scenes.is_empty() || etcd.is_some() {
            scenes.push(Scene::new(etcd, history).await);
        }
    }
    scenes
}

impl Scene {
    async fn new(etcd: Option<Etcd>, history: usize) -> Scene {
        let options = etcd.as_ref().map(|etcd| EtcdOptions::new(etcd.addresses().iter().map(ToString::to_string)));
        let configure = move |config: &mut bluebird::apiserver::Config| {
            config.etcd = options;
            config.history_revisions = history;
        };
        let cluster = TestCluster::builder().configure(configure).start().await;
        let mut truth = Recorder::of_everything();
        truth.open(&cluster.client(), Start::Initial).await;
        while !truth.next().await.expect("the watch goes on").synced {}
        Scene { cluster, truth, etcd }
    }

    /// A client with a connection of its own, so that a reader that stops holds nobody else up.
    fn client(&self) -> Client {
        Client::new(&self.cluster.url()).expect("a URL")
    }

    /// Writes an object of this size.
    async fn write(&mut self, name: &str, bytes: usize) -> Revision {
        let client = self.cluster.client();
        let written = match client.update(lease(name, bytes)).await {
            Err(Error::NotFound(_)) => client.create(lease(name, bytes)).await,
            written => written,
        };
        let revision = Revision(written.expect("the apiserver answers").meta().resource_version);
        self.truth.up_to(revision).await.expect("the watch goes on");
        revision
    }

    /// Writes two objects at one revision.
    async fn write_pair(&mut self, names: [&str; 2]) -> Revision {
        let objects = names.map(|name| lease(name, 1).into_object()).to_vec();
        let applied = self.cluster.client().apply(objects, "writer", false).await.expect("the apiserver answers");
        self.truth.up_to(Revision(applied.revision)).await.expect("the watch goes on");
        Revision(applied.revision)
    }

    /// Writes more than a reader that has stopped is sent, and than the hub keeps for it.
    async fn write_very_much(&mut self) -> Revision {
        for turn in 0..4 * SHORT {
            self.write(&format!("large-{}", turn % 7), OBJECT_BYTES).await;
            if turn % 10 == 0 {
                self.write_pair(["one", "other"]).await;
            }
        }
        self.write("last", 1).await
    }

    /// A state that is far from sent when the first message of it is read.
    async fn fill(&mut self) {
        for number in 0..OBJECTS {
            self.write(&format!("full-{number}"), OBJECT_BYTES).await;
        }
    }

    /// A watch in the middle of the initial state.
    async fn begin(&self, name: &str) -> Recorder {
        let mut recorder = Recorder::of_leases(name);
        recorder.open(&self.client(), Start::Initial).await;
        let first = recorder.next().await.expect("the watch begins");
        assert!(!first.synced && !first.events.is_empty(), "there is more to come");
        recorder
    }

    /// Has etcd forget what it can, too, as its own `--auto-compaction` does.
    fn compact(&self) {
        if let Some(etcd) = &self.etcd {
            // The apiserver may have done so.
            etcd.control(&["compaction", &etcd.status().0.to_string()]);
        }
    }
}

fn lease(name: &str, bytes: usize) -> Lease {
    let spec = LeaseSpec { holder_identity: "x".repeat(bytes), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name.to_owned();
    // No two writes are the same.
    lease.meta_mut().labels.insert("turn".into(), fastrand::u64(..).to_string());
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_slow_or_stop_for_long_are_sent_everything_on_one_stream() {
    for mut scene in scenes(LONG).await {
        let (mut slow, mut stopped) = (Recorder::of_leases("slow"), Recorder::of_leases("stopped"));
        slow.open(&scene.client(), Start::Initial).await;
        stopped.open(&scene.client(), Start::Initial).await;
        for turn in 0..60 {
            scene.write(&format!("slow-{}", turn % 7), OBJECT_BYTES).await;
            if turn % 10 == 0 {
                slow.next().await.expect("the watch goes on");
            }
        }
        let last = scene.write_very_much().await;
        for reader in [&mut slow, &mut stopped] {
            reader.up_to(last).await.expect("the watch goes on");
            assert!(reader.streams() == 1 && reader.received_of_last() >= 4 * SHORT);
        }
        scene.truth.check([slow, stopped]);
        scene.cluster.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_the_history_has_left_behind_is_told_and_heals_by_difference() {
    for mut scene in scenes(SHORT).await {
        let mut behind = Recorder::of_leases("behind");
        let begin = scene.write_pair(["one", "gone"]).await;
        behind.open(&scene.client(), Start::Initial).await;
        behind.up_to(begin).await.expect("the watch begins");
        scene.cluster.client().delete::<Lease>("", "gone", Default::default()).await.expect("it exists");
        scene.write_very_much().await;
        scene.compact();
        let told = behind.up_to(Revision(u64::MAX)).await.expect_err("the history is gone");
        assert!(matches!(told, Error::Compacted { requested, .. } if requested == behind.last_revision()), "{told:?}");
        behind.heal(&scene.client()).await;
        let last = scene.write("after", 1).await;
        behind.up_to(last).await.expect("the watch goes on");
        assert_eq!(behind.streams(), 2);
        scene.truth.check([behind]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_state_whose_history_goes_while_it_is_sent_is_whole_and_what_follows_comes_by_difference() {
    for mut scene in scenes(SHORT).await {
        scene.fill().await;
        let mut behind = scene.begin("behind").await;
        for turn in 0..3 * SHORT {
            scene.write_pair([&format!("full-{}", turn % 5), &format!("new-{turn}")]).await;
        }
        scene.compact();
        let told = behind.up_to(Revision(u64::MAX)).await.expect_err("the history is gone");
        assert!(matches!(told, Error::Compacted { .. }) && behind.is_synced(), "{told:?}");
        behind.heal(&scene.client()).await;
        let last = scene.write("after", 1).await;
        behind.up_to(last).await.expect("the watch goes on");
        scene.truth.check([behind]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initial_state_that_a_kill_cuts_off_is_never_taken_for_whole_and_comes_again() {
    for mut scene in scenes(LONG).await {
        scene.fill().await;
        let (mut anew, mut telling) = (scene.begin("anew").await, scene.begin("telling").await);
        scene.cluster.restart_apiserver().await;
        for cut in [&mut anew, &mut telling] {
            let told = cut.up_to(Revision(u64::MAX)).await.expect_err("its apiserver is gone");
            assert!(told.is_unavailable() && !cut.is_synced(), "{told:?}");
        }
        scene.truth.resume(&scene.cluster.client()).await;
        anew.open(&scene.client(), Start::Initial).await;
        telling.heal(&scene.client()).await;
        let last = scene.write_pair(["full-0", "after"]).await;
        for again in [&mut anew, &mut telling] {
            again.up_to(last).await.expect("the watch goes on");
        }
        assert!(telling.received_of_last() < OBJECTS, "what it had was not sent again");
        scene.truth.check([anew, telling]);
        scene.cluster.finish().await;
    }
}
