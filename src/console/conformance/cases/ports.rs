//! Ports, and services that lead to them.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{is_ready, ports, waits};
use crate::api::v1::PodPhase::{Running, Succeeded};

const PROXY: &[&str] = &["routes.proxy"];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "ports.free-ports",
        promise: "A port without a number is a free one of the node, different for each pod, and is in the status",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {containers: [{name: main, ports: [{name: web}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Phase("a", Running),
            Phase("b", Running),
            KeepPort("a", "a"),
            KeepPort("b", "b"),
            Do(|scene| {
                Box::pin(async move {
                    let (a, b) = (scene.kept("a")?, scene.kept("b")?);
                    if a == b { Err(format!("both have the port {a}")) } else { Ok(()) }
                })
            }),
            Once("c", &["tcp-ask", "127.0.0.1:@a@", "hello", "tcp-ask", "127.0.0.1:@b@", "hello"]),
            Phase("c", Succeeded),
            Log("c", "testapp hello\ntestapp hello\n"),
        ],
    },
    Case {
        name: "ports.same-port-after-restart",
        promise: "A container that is started again has the ports that it had",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web}],
                    command: [testapp, print, 'at $(PORT)', runs, count, '1', '1', print, 'again at $(PORT)', forever]}]}}",
            ),
            KeepPort("port", "a"),
            Says("a", "again at @port@"),
        ],
    },
    Case {
        name: "ports.fixed-port",
        promise: "A port with a number is exactly that",
        needs: &[],
        steps: &[
            KeepFreePort("port"),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web, containerPort: @port@}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Phase("a", Running),
            Until("a", "given that port", |pod| ports(pod).len() == 1),
            Once("b", &["tcp-ask", "127.0.0.1:@port@", "hello"]),
            Phase("b", Succeeded),
        ],
    },
    Case {
        name: "ports.taken-port",
        promise: "A container whose port is taken waits, says so (PortTaken), and starts once it is free",
        needs: &[],
        steps: &[
            KeepFreePort("port"),
            Once("other", &["tcp", "@port@", "print", "listening", "forever"]),
            Says("other", "listening"),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, ports: [{name: web, containerPort: @port@}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Until("a", "waiting for the port", |pod| waits(pod, "PortTaken")),
            Delete("other", Some(1)),
            Phase("a", Running),
        ],
    },
    Case {
        name: "ports.udp",
        promise: "A UDP port is handed out and used like a TCP port",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, env: [{name: NAME, value: shop}], ports: [{name: dns, protocol: UDP}], command: [testapp, udp, $(PORT), forever]}]}}",
            ),
            KeepPort("port", "a"),
            Once("b", &["udp-ask", "127.0.0.1:@port@", "hello"]),
            Phase("b", Succeeded),
            Log("b", "shop hello\n"),
        ],
    },
    Case {
        name: "ports.http",
        promise: "A server in a pod can be asked over HTTP at its port",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: main, env: [{name: NAME, value: shop}], ports: [{name: web}], command: [testapp, serve, $(PORT), forever]}]}}",
            ),
            KeepPort("port", "a"),
            Once("b", &["get", "http://127.0.0.1:@port@/x?y=1", "get", "http://127.0.0.1:@port@/env/NAME"]),
            Phase("b", Succeeded),
            Log("b", "404 shop GET /x?y=1\n200 shop\n"),
        ],
    },
    Case {
        name: "services.tcp",
        promise: "A service's address leads to the pods that it selects",
        needs: PROXY,
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: shop}}, spec: {containers: [{name: main, env: [{name: NAME, value: shop}], ports: [{name: web}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}, ports: [{port: 8080, targetPort: web}]}}",
            ),
            Endpoints("shop", 1),
            Once("b", &["tcp-ask", "$(SHOP_SERVICE_HOST):8080", "hello"]),
            Phase("b", Succeeded),
            Log("b", "shop hello\n"),
        ],
    },
    Case {
        name: "services.low-port",
        promise: "A service may have a port below 1024",
        needs: &["routes.proxy", "routes.low-ports"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: shop}}, spec: {containers: [{name: main, ports: [{name: web}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}, ports: [{port: 80, targetPort: web}]}}",
            ),
            Endpoints("shop", 1),
            Once("b", &["tcp-ask", "$(SHOP_SERVICE_HOST):80", "hello"]),
            Phase("b", Succeeded),
            Log("b", "testapp hello\n"),
        ],
    },
    Case {
        name: "services.only-ready-pods",
        promise: "Only ready pods stand behind a service: none that has ended, and none that is being deleted",
        needs: &[],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}, ports: [{port: 80, targetPort: web}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: shop}}, spec: {containers: [{name: main, ports: [{name: web}], command: [testapp, tcp, $(PORT), forever]}]}}",
            ),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: shop}}, spec: {restartPolicy: Never, containers: [{name: main, ports: [{name: web}], command: [testapp, serve, $(PORT), forever]}]}}",
            ),
            Until("a", "ready", is_ready),
            Endpoints("shop", 2),
            KeepPort("port", "b"),
            Once("c", &["get", "http://127.0.0.1:@port@/exit/0"]),
            Phase("c", Succeeded),
            Phase("b", Succeeded),
            Endpoints("shop", 1),
            Delete("a", None),
            Endpoints("shop", 0),
        ],
    },
];
