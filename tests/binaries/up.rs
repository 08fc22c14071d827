//! One command brings everything up, and down again.

use super::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn up_wait_exit_brings_an_example_up_and_leaves_no_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml");
    let range = super::program::free_range();
    let args = [
        "up",
        example,
        "--wait",
        "--exit",
        "--data-dir",
        data.to_str().expect("text"),
        "--service-cidr",
        &range,
        "--listen",
        "127.0.0.1:0",
    ];
    let mut up = Program::start(folder.path(), "up", env!("CARGO_BIN_EXE_bluebird"), &args);
    let ended = up.ended().await;
    assert!(ended.success(), "{ended}");
    #[cfg(target_os = "linux")]
    assert_eq!(super::program::processes_of(folder.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn up_ends_its_pods_when_it_is_interrupted_and_finds_its_objects_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml");
    for (round, manifest) in [(1, Some(example)), (2, None)] {
        let range = super::program::free_range();
        let mut args = vec!["up"];
        args.extend(manifest);
        args.extend(["--data-dir", data.to_str().expect("text"), "--service-cidr", &range, "--listen", "127.0.0.1:0"]);
        let mut up = Program::start(folder.path(), &format!("up-{round}"), env!("CARGO_BIN_EXE_bluebird"), &args);
        super::program::eventually(
            || format!("round {round} to be up; it said:\n{}", up.said()),
            || up.said().contains("127.").then_some(()),
        )
        .await;
        let ended = up.interrupt().await;
        assert!(ended.success(), "{ended}");
        #[cfg(target_os = "linux")]
        assert_eq!(super::program::processes_of(folder.path()), []);
    }
}
