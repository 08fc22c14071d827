//! What a container mounts, and what becomes of it.

use super::super::case::Case;
use super::super::case::Step::*;
use super::super::look::{main, runs_again, waiting, waits};
use super::super::scene::{Scene, same_text};
use crate::api::v1::PodPhase::{Running, Succeeded};

const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {COLOUR: blue, SIZE: large}}";
const CHANGED_MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {COLOUR: red, SIZE: small}}";
const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {PASSWORD: hunter2}}";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "volumes.empty-dir",
        promise: "An emptyDir is empty at first, and what a run left there is there in the next one",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: OnFailure, volumes: [{name: v, emptyDir: {}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: data/v}],
                        command: [testapp, list, data/v, write, data/v/file, text, runs, count, '1', '1']}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "file\n"),
        ],
    },
    Case {
        name: "volumes.shared",
        promise: "All containers of a pod that mount a volume see the same",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, volumes: [{name: v, emptyDir: {}}], containers: [
                    {name: first, volumeMounts: [{name: v, mountPath: v}], command: [testapp, await-text, v/file, shared, print, seen]},
                    {name: second, volumeMounts: [{name: v, mountPath: v}], command: [testapp, write, v/file, shared]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a/first", "seen\n"),
        ],
    },
    Case {
        name: "volumes.host-path",
        promise: "A folder of the node can be mounted, and its path is in VOLUME_<NAME>",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    volumes: [{name: my-v, hostPath: {path: '@folder@', type: Directory}}],
                    containers: [{name: main, volumeMounts: [{name: my-v, mountPath: v}], command: [testapp, env, VOLUME_MY_V, list, v]}]}}",
            ),
            Phase("a", Succeeded),
            Says("a", "VOLUME_MY_V=@folder@"),
        ],
    },
    Case {
        name: "volumes.host-path-missing",
        promise: "A container waits for a folder of the node that isn't there, and says so",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {
                    volumes: [{name: v, hostPath: {path: '@folder@there-is-no-such-folder', type: Directory}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: v}], command: [testapp, forever]}]}}",
            ),
            Until("a", "waiting for it", |pod| {
                waits(pod, "FailedMount") && main(pod).and_then(waiting).is_some_and(|waiting| waiting.message.contains("there-is-no-such-folder"))
            }),
        ],
    },
    Case {
        name: "volumes.config-map",
        promise: "The keys of a ConfigMap may be files, all under their names or some under paths of their own",
        needs: &["mounts.folders"],
        steps: &[
            Create(MAP),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, volumes: [{name: all, configMap: {name: web}},
                        {name: some, configMap: {name: web, items: [{key: SIZE, path: deep/size.txt}]}}],
                    containers: [{name: main, volumeMounts: [{name: all, mountPath: all}, {name: some, mountPath: etc/some}],
                        command: [testapp, read, all/COLOUR, read, $(VOLUME_ALL)/SIZE, read, etc/some/deep/size.txt]}]}}",
            ),
            Phase("a", Succeeded),
            Log("a", "blue\nlarge\nlarge\n"),
        ],
    },
    Case {
        name: "volumes.secret",
        promise: "The keys of a Secret may be files, which only their owner can read where files have owners",
        needs: &["mounts.folders", "secrets.private"],
        steps: &[
            Create(SECRET),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {volumes: [{name: v, secret: {secretName: db}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: v}],
                        command: [testapp, read, v/PASSWORD, mode, v/PASSWORD, forever]}]}}",
            ),
            Phase("a", Running),
            Says("a", "hunter2"),
            Do(|scene| Box::pin(is_private(scene))),
        ],
    },
    Case {
        name: "volumes.change",
        promise: "When a ConfigMap or a Secret changes its files do, while the container goes on",
        needs: &["mounts.folders", "secrets.private"],
        steps: &[
            Apply(MAP),
            Apply(SECRET),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {
                    volumes: [{name: map, configMap: {name: web}}, {name: secret, secret: {secretName: db}}],
                    containers: [{name: main, volumeMounts: [{name: map, mountPath: map}, {name: secret, mountPath: secret}],
                        command: [testapp, read, map/COLOUR, await-text, map/COLOUR, red, await-text, secret/PASSWORD, better, print, seen, forever]}]}}",
            ),
            Says("a", "blue"),
            Apply(CHANGED_MAP),
            Apply("{apiVersion: v1, kind: Secret, metadata: {name: db}, stringData: {PASSWORD: better}}"),
            Says("a", "seen"),
            Until("a", "running as before", |pod| runs_again(pod, 0)),
        ],
    },
    Case {
        name: "volumes.change-at-once",
        promise: "All files of a volume change at once",
        needs: &["mounts.folders", "volumes.atomic"],
        steps: &[
            Apply(MAP),
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never, volumes: [{name: v, configMap: {name: web}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: v}],
                        command: [testapp, read, v/SIZE, await-text, v/COLOUR, red, read, v/SIZE]}]}}",
            ),
            Says("a", "large"),
            Apply(CHANGED_MAP),
            Phase("a", Succeeded),
            Log("a", "large\nsmall\n"),
        ],
    },
    Case {
        name: "volumes.missing",
        promise: "A container waits for a ConfigMap that it mounts and that isn't there, says so, and starts when it is",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {volumes: [{name: v, configMap: {name: web}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: v}], command: [testapp, read, v/COLOUR, forever]}]}}",
            ),
            Until("a", "waiting for it", |pod| {
                waits(pod, "FailedMount") && main(pod).and_then(waiting).is_some_and(|waiting| waiting.message.contains("\"web\""))
            }),
            Create(MAP),
            Says("a", "blue"),
        ],
    },
    Case {
        name: "volumes.optional",
        promise: "A volume of an optional ConfigMap that isn't there is an empty folder",
        needs: &["mounts.folders"],
        steps: &[
            Create(
                "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Never,
                    volumes: [{name: v, configMap: {name: none, optional: true}}],
                    containers: [{name: main, volumeMounts: [{name: v, mountPath: v}], command: [testapp, list, v]}]}}",
            ),
            Phase("a", Succeeded),
            Do(|scene| Box::pin(is_empty(scene))),
        ],
    },
];

async fn is_private(scene: &mut Scene) -> Result<(), String> {
    if scene.stage.os == "windows" {
        return Ok(());
    }
    scene.says("a", "600").await.map(drop)
}

/// What the node itself keeps there begins with two dots.
async fn is_empty(scene: &mut Scene) -> Result<(), String> {
    let log = scene.log(&scene.request("a")).await?;
    let names: Vec<&str> = log.split_whitespace().filter(|name| !name.starts_with("..")).collect();
    same_text(&names.join(" "), "")
}
