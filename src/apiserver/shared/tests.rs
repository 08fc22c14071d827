use tempfile::TempDir;
use tokio::time::advance;

use super::*;
use crate::api::condition::READY;
use crate::api::v1::{Condition, ConditionStatus, NodeStatus};
use crate::store::{HistoryLimits, Store, fixtures};
use crate::time::Clock;

const LEASE: Duration = Duration::from_secs(10);

/// Two apiservers on one store; the node's session is with `b`.
struct Scene {
    a: Shared,
    b: Shared,
    /// Those of `a`.
    sessions: Sessions,
    _folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = fixtures::open(folder.path(), HistoryLimits::default());
        let (a, b) = (apiserver("apiserver-a", &store).await, apiserver("apiserver-b", &store).await);
        let ready = Condition { r#type: READY.into(), status: ConditionStatus::True.into(), ..Default::default() };
        let status = NodeStatus { conditions: vec![ready], session: Some(b.session("i")), ..Default::default() };
        let mut node = Node { status: Some(status), ..Default::default() };
        node.meta_mut().name = "n1".into();
        a.writer.join(node).await.unwrap();
        let scene = Self { a, b, sessions: Sessions::of_several(), _folder: folder };
        scene
            .a
            .writer
            .change(&scene.key(), false, |node| Ok(readiness::came_back(node, Some(scene.b.session("i")), scene.a.writer.clock.now())))
            .await
            .unwrap();
        scene.a.look(&scene.sessions, Instant::now());
        scene
    }

    fn key(&self) -> ObjectKey {
        ObjectKey::new(Kind::Node, "", "n1")
    }

    /// Whether `a` may judge the node, and let another kubelet in as it.
    fn a_may_judge(&self) -> bool {
        let node = self.a.writer.store.snapshot().get(&self.key()).unwrap().decode();
        assert_eq!(session_of(&node).unwrap().apiserver, self.b.id);
        let may_judge = self.a.may_judge(&node, Instant::now());
        assert_eq!(self.a.check_instance(&node, "another", Instant::now()).is_ok(), may_judge);
        may_judge
    }

    async fn a_renews(&self) {
        self.a.renew(&self.sessions, Told::default()).await.unwrap();
    }

    async fn b_renews(&self) {
        self.b.renew(&Sessions::of_several(), Told::default()).await.unwrap();
    }
}

async fn apiserver(id: &str, store: &Store) -> Shared {
    let writer = Writer { store: store.clone(), clock: Clock::system() };
    writer.create_own_namespaces(true, "127.96.0.0/12").await.unwrap();
    Shared::begin(id, String::new(), LEASE, writer).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_of_an_apiserver_is_no_older_than_the_node_that_is_judged_by_it() {
    let scene = Scene::new().await;
    for _ in 0..10 {
        advance(LEASE / RENEWALS_PER_LEASE).await;
        scene.a_renews().await;
        scene.b_renews().await;
    }
    assert!(!scene.a_may_judge(), "it was renewed all the time, although nobody looked");
}

#[tokio::test(start_paused = true)]
async fn an_apiserver_that_was_out_of_touch_judges_nobody_by_what_it_did_not_see() {
    let scene = Scene::new().await;
    let absent = "another node, which was expected before";
    scene.sessions.expect(absent, Instant::now());
    advance(LEASE * 5 / 2).await;
    assert!(scene.a.has_lapsed(Instant::now()));
    assert!(!scene.a_may_judge(), "not while it is out of touch");
    scene.a.look(&scene.sessions, Instant::now());
    scene.a_renews().await;
    assert!(!scene.a_may_judge(), "nobody else could renew its lease either");
    assert!(!scene.sessions.is_silent(absent, Instant::now(), LEASE), "nobody else could come either");
    for may_judge in [false, false, true] {
        advance(LEASE / RENEWALS_PER_LEASE + Duration::from_millis(1)).await;
        scene.a_renews().await;
        assert_eq!(scene.a_may_judge(), may_judge, "once it had its full time to renew it");
    }
    assert!(scene.sessions.is_silent(absent, Instant::now(), LEASE));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_begins_with_an_apiserver_out_of_touch_is_ended_whatever_else_it_does() {
    let scene = Scene::new().await;
    let session = scene.sessions.open("n2", "i", false, Instant::now()).unwrap();
    let end = tokio::select! {
        end = session.end => end.unwrap(),
        () = scene.a.end_lapsed(&scene.sessions) => unreachable!("it never ends"),
    };
    assert_eq!(end, lapsed());
    let late = scene.sessions.open("n3", "i", false, Instant::now()).unwrap();
    let end = tokio::select! {
        end = late.end => end.unwrap(),
        () = scene.a.end_lapsed(&scene.sessions) => unreachable!("it never ends"),
    };
    assert_eq!(end, lapsed());
}
