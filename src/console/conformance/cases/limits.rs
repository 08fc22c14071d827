//! What a container may use of a machine.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{ended, main, terminated, waits};
use crate::api::condition;
use crate::api::v1::PodPhase::{Failed, Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "limits.memory",
        promise: "A container that uses more memory than its limit is ended and told as OOMKilled; its neighbours live",
        needs: &["memory-limits"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [
                    {name: main, resources: {limits: {memory: 64Mi}}, command: [testapp, eat-memory, '300', '0', forever]}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: main, resources: {limits: {memory: 64Mi}}, command: [testapp, forever]}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told as out of memory", |pod| main(pod).and_then(terminated).is_some_and(|end| end.reason == "OOMKilled")),
            Phase("b", Running),
        ],
    },
    Case {
        name: "limits.memory-within",
        promise: "A container may use the memory that its limit allows",
        needs: &["memory-limits"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [
                    {name: main, resources: {limits: {memory: 128Mi}}, command: [testapp, eat-memory, '64', '0']}]}}",
            ),
            Phase("a", Succeeded),
            Until("a", "well", |pod| ended(pod, 0, "Completed")),
        ],
    },
    Case {
        name: "limits.cpu",
        promise: "A container gets no more processor time than its limit",
        needs: &["cpu-limits"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [
                    {name: main, resources: {limits: {cpu: 200m}}, command: [testapp, eat-cpu, '2000', '2']}]}}",
            ),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&scene.request("a")).await?;
                    let used: u64 =
                        log.split(' ').next().and_then(|word| word.parse().ok()).ok_or_else(|| format!("the log is {log:?}"))?;
                    // 400 ms are allowed in that time, and periods may begin and end with a little more.
                    if used <= 800 { Ok(()) } else { Err(format!("a fifth of a processor for 2 s gave {used} ms")) }
                })
            }),
        ],
    },
    Case {
        name: "limits.pids",
        promise: "A container can't have more processes than its limit",
        needs: &["pids-limits"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [
                    {name: main, resources: {limits: {pids: '16'}}, command: [testapp, spawn, '64']}]}}",
            ),
            Phase("a", Succeeded),
            Do(|scene| {
                Box::pin(async move {
                    let log = scene.log(&scene.request("a")).await?;
                    let started: u64 =
                        log.split(' ').next().and_then(|word| word.parse().ok()).ok_or_else(|| format!("the log is {log:?}"))?;
                    if (1..16).contains(&started) { Ok(()) } else { Err(format!("the log is {log:?}")) }
                })
            }),
        ],
    },
    Case {
        name: "limits.best-effort",
        promise: "A pod for which best effort is enough runs everywhere, and says whether its limits are enforced",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {bestEffortLimits: true, containers: [
                    {name: main, resources: {limits: {memory: 1Gi, cpu: '1', pids: '100'}}, command: [testapp, forever]}]}}",
            ),
            Phase("a", Running),
            Until("a", "told whether", |pod| {
                pod.status.as_ref().is_some_and(|status| condition::get(&status.conditions, "LimitsEnforced").is_some())
            }),
        ],
    },
    Case {
        name: "limits.refused",
        promise: "A pod with a limit that its node can't enforce waits and says so, unless best effort is enough",
        needs: &[],
        steps: &[Do(|scene| {
            Box::pin(async move {
                if scene.stage.capabilities.iter().any(|has| has == "memory-limits") {
                    // This node can: there is nothing to refuse.
                    return Ok(());
                }
                scene.create("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, resources: {limits: {memory: 64Mi}}, command: [testapp, forever]}]}}").await?;
                let told = |pod: &crate::api::v1::Pod| {
                    waits(pod, "MissingCapability") && pod.status.as_ref().is_some_and(|status| status.message.contains("memory-limits"))
                };
                scene.until("a", "told what is missing", told).await.map(drop)
            })
        })],
    },
];
