//! The commands, on what needs no apiserver; `served` has the rest.

mod served;

use std::ffi::OsString;
use std::io::{Read, Write};

use super::{Asked, Surroundings, run};
use crate::api::{default_object, manifest, validate};
use crate::time::Clock;

/// What a command line printed, and its exit code.
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

/// No terminal, and nobody who asks the program to end.
fn surroundings<'io>(
    out: &'io mut (dyn Write + Send),
    err: &'io mut (dyn Write + Send),
    input: &'io mut (dyn Read + Send),
) -> Surroundings<'io> {
    let asked_to_end = || -> Asked { Box::pin(std::future::pending()) };
    let resizes = || -> std::io::Result<super::Resizes> { Ok(Box::pin(futures_util::stream::pending())) };
    let keys = || -> Box<dyn Read + Send> { Box::new(std::io::empty()) };
    let raw_terminal = || Ok(None);
    Surroundings { out, err, input, terminal: || None, clock: Clock::system(), asked_to_end, keys, raw_terminal, resizes }
}

async fn bluebird(line: &str, input: &str) -> Outcome {
    let args = std::iter::once("bluebird").chain(line.split_whitespace()).map(OsString::from);
    let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), input.as_bytes());
    let code = run(args, surroundings(&mut out, &mut err, &mut input)).await;
    Outcome { code, out: String::from_utf8(out).expect("text"), err: String::from_utf8(err).expect("text") }
}

/// The line fails with this code and says this.
#[track_caller]
fn check(outcome: &Outcome, code: u8, hint: &str) {
    assert_eq!(outcome.code, code, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains(hint), "{hint:?} is not in {:?}", outcome.err);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_says_what_is_right() {
    check(&bluebird("", "").await, 2, "Usage:");
    check(&bluebird("gett pods", "").await, 2, "similar");
    check(&bluebird("get", "").await, 2, "name a kind: pods, services");
    check(&bluebird("get pdos", "").await, 2, "did you mean \"pods\"?");
    check(&bluebird("get pods -l a=b=c", "").await, 2, "the selector");
    check(&bluebird("get pods -o xml", "").await, 2, "possible values: table, wide, yaml, json, name");
    check(&bluebird("delete pods", "").await, 2, "say which");
    check(&bluebird("apply", "").await, 2, "-f FILE");
    check(&bluebird("get pods --server ftp://x:1", "").await, 2, "is no server address");
    check(&bluebird("logs service/web", "").await, 2, "has no logs");
    check(&bluebird("logs", "").await, 2, "<POD>");
    check(&bluebird("logs web -l app=web", "").await, 2, "cannot be used with");
    check(&bluebird("logs web --since yesterday", "").await, 2, "is no span of time");
    check(&bluebird("logs web --since-time 12:00", "").await, 2, "write it as in 2026-11-21T15:59:08Z");
    check(&bluebird("logs web --since 1h --since-time 2026-11-21T15:59:08Z", "").await, 2, "cannot be used with");
    check(&bluebird("logs -l app=a=b", "").await, 2, "the selector");
    check(&bluebird("exec service/web -- true", "").await, 2, "name a pod");
    check(&bluebird("exec web", "").await, 2, "-- <COMMAND>");
    check(&bluebird("up --server http://127.0.0.1:1", "").await, 2, "asks no other server");
    check(&bluebird("--server http://127.0.0.1:1 up", "").await, 2, "asks no other server");
}

#[tokio::test]
async fn help_and_version_are_no_failure() {
    for line in ["--help", "get --help", "--version"] {
        let outcome = bluebird(line, "").await;
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{line}");
        assert!(!outcome.out.is_empty());
    }
    assert!(bluebird("--help", "").await.out.contains("Exit codes: 0 done, 1 failed, 2 wrong usage."));
}

#[tokio::test]
async fn completion_scripts_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let outcome = bluebird(&format!("completion {shell}"), "").await;
        assert!(outcome.code == 0 && outcome.out.contains("describe"), "{shell}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_a_way_to_start_one() {
    // Port 1 is reserved, and nobody listens there.
    let outcome = bluebird("get pods --server http://127.0.0.1:1", "").await;
    check(&outcome, 1, "cannot reach http://127.0.0.1:1");
    check(&outcome, 1, "bluebird up");
    let version = bluebird("version --server http://127.0.0.1:1", "").await;
    assert_eq!(version.code, 0);
    assert!(version.out.starts_with("Client: 0.") && version.err.contains("cannot reach"), "{}{}", version.out, version.err);
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_before_anything_is_asked() {
    let apply = |text: &'static str| bluebird("apply -f - --server http://127.0.0.1:1", text);
    check(&apply("apiVersion: v1\nkind: Pod\nmetadata: {nam: a}\n").await, 1, "standard input:3 (document 1): metadata.nam");
    check(&apply("").await, 1, "there are no objects in -");
    check(&bluebird("apply -f /does/not/exist.yaml", "").await, 1, "cannot read /does/not/exist.yaml");
    let other = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n";
    check(&bluebird("apply -f - -n c", other).await, 1, "Pod/b/a is not in the namespace \"c\"");
}

#[tokio::test]
async fn folders_are_read_in_order_and_deeper_only_when_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    check(&bluebird(&format!("apply -f {path}"), "").await, 1, "-R looks into the folders within");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: same}\n";
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    std::fs::create_dir(folder.path().join("deeper")).expect("a folder");
    write("a.yaml", pod);
    write("notes.txt", "no manifest");
    write("deeper/b.yml", pod);
    check(&bluebird(&format!("apply -f {path} --server http://127.0.0.1:1"), "").await, 1, "cannot reach");
    let twice = bluebird(&format!("apply -R -f {path}"), "").await;
    check(&twice, 1, "b.yml:1 (document 1): metadata.name: Pod/default/same stands in");
    check(&twice, 1, "a.yaml:1 (document 1) already");
}

#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let (mut closed, mut nothing) = (Closed, std::io::empty());
    let io = surroundings(&mut closed, &mut err, &mut nothing);
    let code = run(["bluebird", "explain", "pod"].map(OsString::from), io).await;
    assert_eq!((code, err.as_slice()), (0, &b""[..]));
}

#[test]
fn the_examples_are_right() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    let paths = std::fs::read_dir(folder).expect("the examples").map(|entry| entry.expect("an example").path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")) {
        let text = std::fs::read_to_string(&path).expect("an example");
        for mut object in manifest::parse(&text, &path.display().to_string()).expect("a manifest") {
            default_object(&mut object);
            assert_eq!(validate(&object), [], "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 4, "the examples have objects");
}
