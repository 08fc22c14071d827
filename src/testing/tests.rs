//! The fixture itself, without kubelets.

use super::*;
use crate::api::Resource;
use crate::api::v1::{Lease, LeaseSpec};

fn lease(name: &str) -> Lease {
    let spec = LeaseSpec { holder_identity: "me".into(), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name.into();
    lease
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_every_fault_and_its_watches_are_resumed() {
    let mut cluster = TestCluster::builder().start().await;
    cluster.watch("leases", vec![Selector { kind: "Lease".into(), ..Default::default() }]);
    for (round, fault) in ["cut", "restart", "unplug"].into_iter().enumerate() {
        let name = format!("after-{round}");
        match fault {
            "cut" => cluster.cut_connections(),
            "restart" => cluster.restart_apiserver().await,
            _ => {
                cluster.set_link(Link::Unplugged);
                cluster.client().create(lease("never")).await.expect_err("nobody carries it");
                cluster.set_link(Link::Good);
            }
        }
        let created = loop {
            match cluster.client().create(lease(&name)).await {
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                created => break created,
            }
        };
        assert!(matches!(created, Ok(_) | Err(crate::error::Error::AlreadyExists(_))), "{created:?}");
        cluster.wait_for(&name, |state| state.get::<Lease>("", &name)).await;
    }
    assert!(cluster.resumes() >= 3, "{}", cluster.resumes());
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "in vain for a miracle")]
async fn waiting_in_vain_says_for_what() {
    let cluster = TestCluster::builder().deadline(Duration::from_millis(100)).start().await;
    cluster.wait_for("a miracle", |state| state.get::<Lease>("", "miracle")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_the_random_choices() {
    let (one, other) = (TestCluster::builder().seed(7).start().await, TestCluster::builder().seed(7).start().await);
    assert_eq!(one.rng().u64(..), other.rng().u64(..));
    one.finish().await;
    other.finish().await;
}
