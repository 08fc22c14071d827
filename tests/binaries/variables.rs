//! What programs make of their environment.

use super::program::Program;

const VARIABLES: &[&str] = &[
    "DATA_DIR",
    "ETCD_CA",
    "ETCD_PASSWORD",
    "ETCD_PREFIX",
    "HISTORY_AGE",
    "INSECURE_PLAINTEXT",
    "LABELS",
    "LISTEN",
    "MAX_PODS",
    "NAMESPACE",
    "NODE_IP",
    "NODE_NAME",
    "NO_ROUTES",
    "ROOT_DIR",
    "SERVER",
    "SERVICE_CIDR",
    "SHIM",
    "STATIC_PODS",
    "STORE",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_variable_is_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let no_folder = folder.path().join("a file").display().to_string();
    std::fs::write(&no_folder, "").expect("the test's own folder");
    let empty: Vec<_> = VARIABLES.iter().map(|name| format!("BLUEBIRD_{name}=")).collect();
    let unreachable = "http://127.0.0.1:1";
    for (name, program, args, complaint) in [
        ("apiserver", env!("CARGO_BIN_EXE_apiserver"), &["--data-dir", &no_folder][..], no_folder.as_str()),
        ("kubelet", env!("CARGO_BIN_EXE_kubelet"), &["--root-dir", &no_folder], &no_folder),
        ("up", env!("CARGO_BIN_EXE_bluebird"), &["up", "--data-dir", &no_folder], &no_folder),
        ("get", env!("CARGO_BIN_EXE_bluebird"), &["get", "pods", "--server", unreachable], unreachable),
    ] {
        let words: Vec<_> = empty.iter().map(String::as_str).chain([program]).chain(args.iter().copied()).collect();
        let mut started = Program::start(folder.path(), name, "env", &words);
        // A variable that is misread is wrong usage: 2.
        assert_eq!(started.ended().await.code(), Some(1), "{}", started.said());
        assert!(started.said().contains(complaint), "{name}: {}", started.said());
    }
}
