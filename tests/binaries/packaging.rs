//! The service files name programs, flags and variables that there are, and systemd understands its own.

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [(&str, &str); 2] = [("kubelet", env!("CARGO_BIN_EXE_kubelet")), ("apiserver", env!("CARGO_BIN_EXE_apiserver"))];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging")
}

fn help(program: &str) -> String {
    let (_, path) = PROGRAMS.into_iter().find(|(name, _)| *name == program).expect("one of ours");
    let output = Command::new(path).arg("--help").output().expect("a program");
    String::from_utf8(output.stdout).expect("text")
}

/// The words of a text that begin so, each once.
fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)));
    parts.filter(move |word| word.starts_with(start) && word.len() > start.len())
}

#[test]
fn service_files_use_only_flags_and_variables_that_their_programs_have() {
    let files = [
        ("kubelet", "systemd/bluebird-kubelet.service"),
        ("apiserver", "systemd/bluebird-apiserver.service"),
        ("kubelet", "launchd/org.bluebird.kubelet.plist"),
        ("apiserver", "launchd/org.bluebird.apiserver.plist"),
        ("kubelet", "windows/install-kubelet.ps1"),
    ];
    for (program, file) in files {
        let (text, help) = (std::fs::read_to_string(packaging().join(file)).expect("it is there"), help(program));
        let known: Vec<&str> = words(&help, "--").chain(words(&help, "BLUEBIRD_")).collect();
        let used: Vec<&str> = words(&text, "--").chain(words(&text, "BLUEBIRD_")).filter(|word| !word.ends_with('-')).collect();
        assert!(used.iter().any(|word| word.starts_with("--")), "{file} gives no flag");
        for word in used {
            assert!(known.contains(&word), "{file} says {word}, which {program} doesn't know");
        }
    }
    let readme = std::fs::read_to_string(packaging().join("README.md")).expect("it is there");
    let (kubelet, apiserver) = (help("kubelet"), help("apiserver"));
    for word in words(&readme, "BLUEBIRD_") {
        assert!(words(&kubelet, "BLUEBIRD_").chain(words(&apiserver, "BLUEBIRD_")).any(|known| known == word), "README.md says {word}");
    }
}

/// Where there is no systemd nobody can say.
#[cfg(target_os = "linux")]
#[test]
fn systemd_finds_nothing_wrong_with_its_units() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut units = Vec::new();
    for (name, program) in PROGRAMS {
        let unit = format!("bluebird-{name}.service");
        let text = std::fs::read_to_string(packaging().join("systemd").join(&unit)).expect("it is there");
        let installed = format!("/usr/local/bin/{name}");
        assert!(text.contains(&installed), "{unit} starts something else");
        std::fs::write(folder.path().join(&unit), text.replace(&installed, program)).expect("the test's own folder");
        units.push(folder.path().join(unit));
    }
    let output = match Command::new("systemd-analyze").arg("verify").args(&units).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        output => output.expect("a program"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("bluebird")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}
