//! Probes: what has started, is alive, and is ready.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{init, is_ready, main, running, runs_again};
use crate::api::v1::PodPhase::{Running, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "probes.readiness-http",
        promise: "A pod is Ready while its readiness probe by http passes, and only ready pods stand behind a service",
        needs: &[],
        steps: &[
            Create("{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}, ports: [{port: 8080, targetPort: web}]}}"),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: shop}}, spec: {containers: [{name: main, ports: [{name: web}],
                    command: [testapp, serve, $(PORT), forever],
                    readinessProbe: {httpGet: {path: /health, port: web}, periodSeconds: 1, failureThreshold: 1}}]}}",
            ),
            Until("a", "ready", is_ready),
            Endpoints("shop", 1),
            KeepPort("port", "a"),
            Once("off", &["get", "http://127.0.0.1:@port@/unhealthy"]),
            Until("a", "not ready, and running", |pod| !is_ready(pod) && main(pod).and_then(running).is_some()),
            Endpoints("shop", 0),
            Once("on", &["get", "http://127.0.0.1:@port@/healthy"]),
            Until("a", "ready", is_ready),
            Endpoints("shop", 1),
        ],
    },
    Case {
        name: "probes.readiness-tcp",
        promise: "A readiness probe by tcp passes when somebody listens",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web}],
                    command: [testapp, print, 'at $(PORT)', wait-for, go, tcp, $(PORT), forever],
                    readinessProbe: {tcpSocket: {port: web}, periodSeconds: 1}},
                    {name: side, command: [testapp, sleep, '1500', write, go, now, forever]}]}}",
            ),
            Until("a", "running and not ready", |pod| !is_ready(pod) && main(pod).and_then(running).is_some()),
            Until("a", "ready", is_ready),
        ],
    },
    Case {
        name: "probes.readiness-grpc",
        promise: "A readiness probe by grpc asks the health service for what is named",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: rpc}], command: [testapp, grpc, $(PORT), forever],
                    readinessProbe: {grpc: {port: rpc, service: ready}, periodSeconds: 1}}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: main, ports: [{name: rpc}], command: [testapp, grpc, $(PORT), forever],
                    readinessProbe: {grpc: {port: rpc, service: unready}, periodSeconds: 1}}]}}",
            ),
            Until("a", "ready", is_ready),
            Until("b", "running and not ready", |pod| !is_ready(pod) && main(pod).and_then(running).is_some()),
        ],
    },
    Case {
        name: "probes.readiness-exec",
        promise: "A readiness probe by exec runs a command in the container's folder, and passes when that returns 0",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main,
                    command: [testapp, sleep, '1500', write, go, now, forever],
                    readinessProbe: {exec: {command: [testapp, read, go]}, periodSeconds: 1, timeoutSeconds: 10}}]}}",
            ),
            Until("a", "running and not ready", |pod| !is_ready(pod) && main(pod).and_then(running).is_some()),
            Until("a", "ready", is_ready),
        ],
    },
    Case {
        name: "probes.liveness",
        promise: "A container whose liveness probe fails is ended and started again",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, ports: [{name: web}],
                    command: [testapp, serve, $(PORT), forever],
                    livenessProbe: {httpGet: {path: /health, port: web}, periodSeconds: 1, failureThreshold: 2}}]}}",
            ),
            Phase("a", Running),
            KeepPort("port", "a"),
            Once("off", &["get", "http://127.0.0.1:@port@/unhealthy"]),
            Phase("off", Succeeded),
            Until("a", "running again", |pod| runs_again(pod, 1)),
        ],
    },
    Case {
        name: "probes.hanging",
        promise: "A probe that gets no answer in its time fails",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, ports: [{name: web}],
                    command: [testapp, serve, $(PORT), forever],
                    livenessProbe: {httpGet: {path: /hang, port: web}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}}]}}",
            ),
            Until("a", "running again", |pod| runs_again(pod, 1)),
        ],
    },
    Case {
        name: "probes.startup",
        promise: "Until its startup probe has passed a container has not started, and its other probes wait",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main,
                    command: [testapp, sleep, '1500', write, go, now, forever],
                    startupProbe: {exec: {command: [testapp, read, go]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 100},
                    livenessProbe: {exec: {command: [testapp, read, go]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 1}}]}}",
            ),
            Until("a", "running and not started", |pod| main(pod).is_some_and(|main| running(main).is_some() && !main.started)),
            Until("a", "started and ready, the first time", |pod| {
                is_ready(pod) && main(pod).is_some_and(|main| main.started && main.restart_count == 0)
            }),
        ],
    },
    Case {
        name: "sidecar.startup",
        promise: "What follows a sidecar waits until its startup probe has passed",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    initContainers: [{name: side, restartPolicy: Always, command: [testapp, sleep, '1500', write, go, now, forever],
                        startupProbe: {exec: {command: [testapp, read, go]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 100}}],
                    containers: [{name: main, command: [testapp, read, go]}]}}",
            ),
            Until("a", "waiting for the sidecar", |pod| init(pod, "side").is_some_and(|side| running(side).is_some() && !side.started)),
            Phase("a", Succeeded),
            Log("a/main", "now\n"),
        ],
    },
];
