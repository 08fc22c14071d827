use super::*;

const DB: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {colour: blue, page: \"one\\ntwo\\u001b[31m\"}
binaryData: {logo: /wA=}
---
apiVersion: v1
kind: Secret
metadata: {name: db}
data: {user: cm9vdA==}
stringData: {password: hunter2}
";

#[tokio::test]
async fn describe_shows_what_a_config_map_holds_and_of_a_secret_only_how_much() {
    let served = Served::start().await;
    served.apply(DB).await;
    let page = served.print("describe cm web").await;
    for line in ["  colour:", "    blue", "    one", "    two?[31m", "  logo:", "    2 bytes"] {
        assert!(page.lines().any(|found| found == line), "{line:?} is missing in\n{page}");
    }
    let page = served.print("describe secret db").await;
    for line in ["Type:              Opaque", "  password:", "    7 bytes"] {
        assert!(page.lines().any(|found| found == line), "{line:?} is missing in\n{page}");
    }
    assert!(!page.contains("hunter2") && !page.contains("root") && !page.contains("aHVudGVyMg"), "{page}");
    assert_eq!(columns(&served.print("get secrets,cm").await)[1], "secret/db Opaque 2 0s");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn a_secret_is_printed_as_base64_and_applied_again_it_is_the_same() {
    let served = Served::start().await;
    served.apply(DB).await;
    assert_eq!(served.apply(DB).await, "configmap/web unchanged\nsecret/db unchanged\n");
    let printed = served.print("get secret db -o yaml").await;
    assert!(printed.contains("  password: aHVudGVyMg==\n  user: cm9vdA==\n") && !printed.contains("stringData"), "{printed}");
    // It gives more than was given before: what had been filled in.
    served.apply(&printed).await;
    let printed = served.print("get secret db -o yaml").await;
    assert_eq!(served.apply(&printed).await, "secret/db unchanged\n");
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn no_error_about_a_secret_tells_what_it_holds() {
    let served = Served::start().await;
    let wrong = |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\n{data}\n");
    for (data, hint) in [
        ("data: {password: hunter2}", "data[password]: must be bytes as base64, in a text, and isn't; text as it is goes under stringData"),
        ("data: hunter2", "data: must be a mapping, and isn't"),
        ("stringData: {password: 4711}", "stringData[password]: must be a text, and isn't; put it in quotes"),
        ("stringData: {'..': hunter2}", "\"..\" is not a key: at most 253 letters"),
    ] {
        let outcome = served.run_with("apply -f -", &wrong(data)).await;
        assert!(outcome.err.contains(hint), "{data}: {}", outcome.err);
        assert!(!outcome.err.contains("hunter2") && !outcome.err.contains("4711"), "{}", outcome.err);
    }
    served.apiserver.shutdown().await;
}

#[tokio::test]
async fn describe_says_where_variables_and_files_of_a_pod_come_from() {
    let served = Served::start().await;
    served
        .apply(
            "\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: main
    command: [serve]
    envFrom: [{configMapRef: {name: web, optional: true}, prefix: WEB_}]
    env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}]
    volumeMounts: [{name: data, mountPath: data/cache}, {name: keys, mountPath: keys}]
  volumes:
  - {name: data, hostPath: {path: /srv, type: \"\"}}
  - {name: keys, secret: {secretName: db, items: [{key: password, path: secret/password}]}}
",
        )
        .await;
    let page = columns(&served.print("describe pod web").await);
    for line in [
        "Env: PASSWORD from key password of Secret db",
        "Env From: ConfigMap web, as WEB_* (optional)",
        "Mount: data at data/cache",
        "Volumes:",
        "data: hostPath /srv",
        "keys: Secret db",
    ] {
        assert!(page.iter().any(|found| found == line), "{line:?} is missing in {page:?}");
    }
    served.apiserver.shutdown().await;
}
