//! The file of a backup, whatever happens to the program that writes it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bluebird::testing::free_port;

use super::follower::Follower;
use super::program::{Program, eventually, free_range};

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().expect("the test's own folder");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_its_owners_only_and_the_next_one_removes_what_a_killed_one_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (logs, place) = (folder.path(), folder.path().join("backups"));
    std::fs::create_dir(&place).expect("the test's own folder");
    let file = place.join("file").display().to_string();
    let backup = |name: &str, url: &str| Program::start(logs, name, env!("CARGO_BIN_EXE_bluebird"), &["backup", &file, "--server", url]);

    // Nobody ever answers there.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = format!("http://{}", silent.local_addr().expect("bound"));
    let mut killed = backup("killed", &silent);
    eventually(|| "the file to be begun".into(), || (!names(&place).is_empty()).then_some(())).await;
    killed.kill();
    assert!(matches!(&names(&place)[..], [left] if left.ends_with(".unfinished")), "{:?}", names(&place));

    let (port, data) = (free_port(), folder.path().join("data"));
    let (listen, range) = (format!("127.0.0.1:{port}"), free_range());
    let args = ["--data-dir", data.to_str().expect("text"), "--listen", &listen, "--service-cidr", &range];
    let mut apiserver = Program::start(logs, "apiserver", env!("CARGO_BIN_EXE_apiserver"), &args);
    Follower::connect(&format!("http://{listen}")).await;
    let mut whole = backup("whole", &format!("http://{listen}"));
    assert!(whole.ended().await.success(), "{}", whole.said());
    assert_eq!(names(&place), ["file"]);
    assert_eq!(Path::new(&file).metadata().expect("a backup").permissions().mode() & 0o777, 0o600);
    assert!(apiserver.interrupt().await.success());
}
