use tokio_util::sync::CancellationToken;

use super::super::secret;
use super::*;
use crate::api::Resource as _;
use crate::api::v1::Secret;
use crate::apiserver::{self, Apiserver, Config, Listen};
use crate::client::DeleteOptions;
use crate::kubelet::wakes::Woken;
use crate::time::Clock;

/// How long anything that should happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What pods follow, of an apiserver of their own.
struct Scene {
    followed: Arc<Followed>,
    apiserver: Apiserver,
    client: Client,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let apiserver = apiserver::start(Config::new(folder.path(), Listen::LOCAL), Clock::system()).await.unwrap();
        let client = Client::from_channel(apiserver.channel());
        let tasks = Arc::new(Tasks::new(CancellationToken::new()));
        Self { followed: Followed::new(client.clone(), Arc::default(), tasks), apiserver, client, folder }
    }

    /// Creates a secret, or changes it; gives its version.
    async fn write(&self, name: &str, text: &str) -> Revision {
        let mut secret = Secret { string_data: [("key".to_owned(), text.to_owned())].into(), ..Secret::default() };
        secret.meta_mut().name = name.into();
        let applied = self.client.apply(vec![secret.into_object()], "test", false).await.unwrap();
        Revision(applied.revision)
    }

    /// What a pod sees of an object, as soon as that is known; woken as a kubelet is.
    async fn seen(&self, uid: &PodUid, name: &str, since: Revision) -> Option<Vec<u8>> {
        let look = async {
            loop {
                if let Some(found) = self.followed.look(uid, &secret("", name), since) {
                    return found;
                }
                assert_eq!(self.followed.wakes.next(1).await, Woken::Pods(vec![uid.clone()]));
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await.expect("it becomes known")?;
        Some(Secret::from_object_ref(&found)?.data["key"].clone())
    }

    fn watches(&self) -> Vec<Vec<ObjectKey>> {
        self.followed.lock().watches.iter().map(|watch| watch.cache.as_ref().map(Cache::keys).unwrap_or_default()).collect()
    }

    async fn finish(self) {
        self.followed.tasks.shutdown(PATIENCE).await;
        self.apiserver.shutdown().await;
        drop(self.folder);
    }
}

fn pod(name: &str) -> PodUid {
    PodUid::new(name).unwrap()
}

#[tokio::test]
async fn a_node_is_sent_what_its_pods_name_and_no_other_secret() {
    let scene = Scene::new().await;
    for name in ["mine", "later", "others"] {
        scene.write(name, name).await;
    }
    scene.followed.settle();
    assert_eq!(scene.watches(), Vec::<Vec<ObjectKey>>::new(), "nobody uses anything");

    scene.followed.use_by(&pod("a"), [secret("", "mine"), secret("", "missing")].into(), Revision::ZERO);
    scene.followed.settle();
    assert_eq!(scene.seen(&pod("a"), "mine", Revision::ZERO).await, Some(b"mine".to_vec()));
    assert_eq!(scene.seen(&pod("a"), "missing", Revision::ZERO).await, None);
    scene.followed.use_by(&pod("b"), [secret("", "later")].into(), Revision::ZERO);
    scene.followed.settle();
    assert_eq!(scene.seen(&pod("b"), "later", Revision::ZERO).await, Some(b"later".to_vec()));
    assert_eq!(scene.watches(), [[secret("", "later"), secret("", "mine")]]);

    scene.followed.forget(&pod("a"));
    scene.followed.settle();
    let left = async {
        while scene.watches() != [[secret("", "later")]] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left).await.expect("what nobody uses any more is not held");
    scene.followed.forget(&pod("b"));
    scene.followed.settle();
    assert_eq!(scene.watches(), Vec::<Vec<ObjectKey>>::new());
    scene.finish().await;
}

#[tokio::test]
async fn who_uses_an_object_is_woken_when_it_changes_appears_or_goes() {
    let scene = Scene::new().await;
    scene.followed.use_by(&pod("a"), [secret("", "db")].into(), Revision::ZERO);
    scene.followed.settle();
    assert_eq!(scene.seen(&pod("a"), "db", Revision::ZERO).await, None);
    for text in ["one", "two"] {
        let since = scene.write("db", text).await;
        assert_eq!(scene.seen(&pod("a"), "db", since).await, Some(text.as_bytes().to_vec()));
    }
    scene.client.delete::<Secret>("", "db", DeleteOptions::default()).await.unwrap();
    let since = scene.write("other", "").await;
    scene.followed.use_by(&pod("a"), [secret("", "db")].into(), since);
    scene.followed.settle();
    assert_eq!(scene.seen(&pod("a"), "db", since).await, None);
    scene.finish().await;
}

#[tokio::test]
async fn a_new_pod_never_sees_an_older_state_than_that_in_which_it_was_made() {
    let scene = Scene::new().await;
    scene.write("db", "one").await;
    scene.followed.use_by(&pod("a"), [secret("", "db")].into(), Revision::ZERO);
    scene.followed.settle();
    assert_eq!(scene.seen(&pod("a"), "db", Revision::ZERO).await, Some(b"one".to_vec()));
    // Nothing that is watched changes any more, so that the watch would only hear of it with its next bookmark.
    let since = scene.write("other", "").await;
    assert_eq!(scene.followed.look(&pod("b"), &secret("", "db"), since), None);
    scene.followed.use_by(&pod("b"), [secret("", "db")].into(), since);
    scene.followed.settle();
    let look = async {
        while scene.followed.look(&pod("b"), &secret("", "db"), since).is_none() {
            scene.followed.wakes.next(2).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("the watch asks");
    scene.finish().await;
}

#[tokio::test]
async fn many_objects_are_followed_by_a_few_watches() {
    let scene = Scene::new().await;
    let names: Vec<String> = (0..SHARE + 6).map(|index| format!("s{index}")).collect();
    for name in &names {
        scene.write(name, name).await;
    }
    scene.followed.use_by(&pod("a"), names.iter().map(|name| secret("", name)).collect(), Revision::ZERO);
    scene.followed.settle();
    for name in &names {
        assert_eq!(scene.seen(&pod("a"), name, Revision::ZERO).await, Some(name.as_bytes().to_vec()));
    }
    assert_eq!(scene.watches().iter().map(Vec::len).collect::<Vec<_>>(), [SHARE, 6]);
    scene.finish().await;
}
