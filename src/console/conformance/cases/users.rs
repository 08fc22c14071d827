//! Whom processes are.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{main, terminated};
use crate::api::v1::PodPhase::{Failed, Succeeded};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "users.run-as",
        promise: "A process is whom `runAs` names, and the pod's folder is its own",
        needs: &["run-as"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, runAs: '12345:54321',
                    command: [testapp, user, write, file, text, read, file]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "uid=12345 gid=54321\ntext\n"),
        ],
    },
    Case {
        name: "users.volumes",
        promise: "A container with `runAs` can write to its emptyDir and read its ConfigMap and its Secret, which is its user's only",
        needs: &["mounts.folders", "run-as", "secrets.private"],
        steps: &[
            Create("{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {COLOUR: blue}}"),
            Create("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {PASSWORD: hunter2}}"),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    volumes: [{name: own, emptyDir: {}}, {name: map, configMap: {name: web}}, {name: secret, secret: {secretName: db}}],
                    containers: [{name: main, runAs: '12345:54321',
                        volumeMounts: [{name: own, mountPath: data/own}, {name: map, mountPath: etc/map}, {name: secret, mountPath: etc/secret}],
                        command: [testapp, write, data/own/file, text, read, data/own/file, read, etc/map/COLOUR, read, etc/secret/PASSWORD,
                            mode, etc/secret/PASSWORD]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "text\nblue\nhunter2\n600\n"),
        ],
    },
    Case {
        name: "users.secret-of-another",
        promise: "The files of a Secret can't be read by a container of the pod that is another user",
        needs: &["mounts.folders", "run-as", "secrets.private"],
        steps: &[
            Create("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {PASSWORD: hunter2}}"),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, volumes: [{name: v, secret: {secretName: db}}], containers: [
                    {name: owner, runAs: '12345:54321', volumeMounts: [{name: v, mountPath: v}], command: [testapp, read, v/PASSWORD, write, ready, '']},
                    {name: other, runAs: '12346:54321', command: [testapp, wait-for, ready, read, v/PASSWORD]}]}}",
            ),
            Phase("a", Failed),
            Log("a/owner", "hunter2\n"),
            Says("a/other", "v/PASSWORD: "),
        ],
    },
    Case {
        name: "users.missing",
        promise: "A user that isn't there fails the start, and is told by name",
        needs: &["run-as"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, containers: [{name: main, runAs: no-such-user,
                    command: [testapp, user]}]}}",
            ),
            Phase("a", Failed),
            Until("a", "told why", |pod| {
                main(pod).and_then(terminated).is_some_and(|end| end.reason == "StartError" && end.message.contains("no-such-user"))
            }),
        ],
    },
];
