//! Two control planes on one store.

use tempfile::TempDir;

use super::*;
use crate::api::SYSTEM_NAMESPACE;
use crate::api::v1::{Lease, ObjectMeta, Service, ServicePort, ServiceSpec};
use crate::client::tests::scene::until;
use crate::store::{HistoryLimits, Options, Store};

/// As short as whole seconds allow.
const TERMS: Terms = Terms {
    lease_duration: Duration::from_secs(2),
    renew_deadline: Duration::from_secs(1),
    retry_period: Duration::from_millis(200),
    stop: Duration::from_millis(900),
};

struct Scene {
    store: Store,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let history = HistoryLimits { revisions: 10_000, bytes: 1 << 20, ..HistoryLimits::default() };
        let store = Store::embedded(folder.path().join("data"), Options { history, clock: Clock::system() }).expect("a store");
        Self { store, folder }
    }

    async fn start(&self) -> ControlPlane {
        let config = apiserver::Config::new(self.folder.path(), Listen::LOCAL);
        let controllers = controllers::Config { service_cidr: config.service_cidr.clone() };
        let apiserver = apiserver::start_beside(config, &self.store, Clock::system()).await.expect("an apiserver");
        ControlPlane::over(apiserver, controllers, TERMS, Clock::system()).await.expect("a control plane")
    }
}

async fn lease(client: &Client) -> Option<(String, u32)> {
    let spec = client.get::<Lease>(SYSTEM_NAMESPACE, "controllers").await.ok()?.spec?;
    Some((spec.holder_identity, spec.lease_transitions))
}

/// A service gets an address: somebody's controllers work.
async fn somebody_works(client: &Client, name: &str) {
    let spec = ServiceSpec { ports: vec![ServicePort { port: 80, ..Default::default() }], ..Default::default() };
    let metadata = ObjectMeta { name: name.into(), ..Default::default() };
    client.create(Service { metadata: Some(metadata), spec: Some(spec), status: None }).await.expect("created");
    until("the service has an address", async || {
        let service = client.get::<Service>("", name).await.expect("it exists");
        (!service.spec?.cluster_ip.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controllers_of_one_of_two_apiservers_work_and_the_others_take_over() {
    let scene = Scene::new();
    let one = scene.start().await;
    let first = (one.apiserver.id().to_owned(), 0);
    until("the first one leads", async || (lease(&one.client()).await? == first).then_some(())).await;
    let two = scene.start().await;
    let client = two.client();
    somebody_works(&client, "first").await;
    assert_eq!(lease(&client).await, Some(first), "the second one waits");

    let second = (two.apiserver.id().to_owned(), 1);
    one.shutdown().await;
    until("the second one leads", async || (lease(&client).await? == second).then_some(())).await;
    somebody_works(&client, "second").await;

    let three = scene.start().await;
    let (client, third) = (three.client(), (three.apiserver.id().to_owned(), 2));
    two.kill().await;
    until("the third one leads", async || (lease(&client).await? == third).then_some(())).await;
    somebody_works(&client, "third").await;
    three.shutdown().await;
    scene.store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_has_its_store_to_itself_has_no_lease() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = apiserver::Config::new(folder.path(), Listen::LOCAL);
    let alone = ControlPlane::start(config, Clock::system()).await.expect("a control plane");
    somebody_works(&alone.client(), "web").await;
    assert_eq!(alone.client().list::<Lease>("").await.expect("listed"), []);
    alone.shutdown().await;
}

#[tokio::test]
async fn a_range_of_service_addresses_that_is_none_is_refused_before_it_is_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = apiserver::Config::new(folder.path(), Listen::LOCAL);
    for none in ["127.97.1.0/12", "foo"] {
        let started = ControlPlane::start(apiserver::Config { service_cidr: none.to_owned(), ..config.clone() }, Clock::system()).await;
        assert!(matches!(started, Err(super::StartError::Controllers(_))), "{none}");
    }
    ControlPlane::start(config, Clock::system()).await.expect("a control plane").shutdown().await;
}
