//! What is told of what pods use.

use tokio::time::Instant;

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::scene::{Scene, told};
use crate::api::v1::PodPhase::Running;
use crate::api::v1::{ContainerUsage, Selector, TopRequest};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "top.cpu",
        promise: "What a container's processes use of processors is told while they do, and what rests is told to rest",
        needs: &[],
        steps: &[
            Once("busy", &["eat-cpu", "600000", "1"]),
            Once("idle", &["forever"]),
            Phase("busy", Running),
            Phase("idle", Running),
            Do(|scene| Box::pin(until(scene, "busy", "half a tenth of a core or more", |used| used.cpu_millis >= Some(50)))),
            Do(|scene| Box::pin(until(scene, "idle", "hardly any cpu", |used| used.cpu_millis.is_some_and(|millis| millis < 50)))),
        ],
    },
    Case {
        name: "top.memory",
        promise: "How much memory a container's processes have is told",
        needs: &[],
        steps: &[
            Once("large", &["eat-memory", "64", "0", "forever"]),
            Phase("large", Running),
            Do(|scene| Box::pin(until(scene, "large", "64 MiB or more", |used| used.memory_bytes >= Some(60 << 20)))),
        ],
    },
];

/// Asks until the only container of a pod uses as much as it should.
async fn until(scene: &mut Scene, pod: &str, what: &str, is_so: fn(&ContainerUsage) -> bool) -> Result<(), String> {
    let selector = Selector { kind: "Pod".to_owned(), namespace: scene.namespace.clone(), name: pod.to_owned(), ..Default::default() };
    let deadline = Instant::now() + scene.stage.timeout;
    loop {
        let answer = scene.stage.client.top(TopRequest { selector: Some(selector.clone()) }).await.map_err(told)?;
        let row = answer.pods.first().ok_or("the answer has no row for the pod")?;
        if row.usage.iter().flat_map(|usage| &usage.containers).any(is_so) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("pod {pod} should use {what}, but it is told as {:?} {:?}", row.usage, row.missing));
        }
        tokio::time::sleep(super::super::scene::LOOK_AGAIN).await;
    }
}
