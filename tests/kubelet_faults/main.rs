//! `kill -9` of a kubelet at random moments, while its pods start, stop, crash and are deleted: no process is orphaned, no run starts twice, no exit code and
//! no log line is lost.
//!
//! ```sh
//! BLUEBIRD_KUBELET_FAULTS=1000 cargo test --release --test kubelet_faults -- --nocapture
//! ```
//! `BLUEBIRD_SEED` repeats the choices of an earlier run; how they fall in time is up to the machine.
//!
//! What this needs of the operating system: /proc.
#![cfg(target_os = "linux")]

mod actor;
mod checks;
mod history;
mod processes;
#[allow(dead_code, reason = "shared with the tests of the executables")]
#[path = "../binaries/program.rs"]
mod program;
mod run;

use run::Run;

/// How many rounds there are unless `BLUEBIRD_KUBELET_FAULTS` says otherwise.
const FAULTS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_is_killed_at_any_moment_loses_doubles_and_orphans_nothing() {
    let seed = number("BLUEBIRD_SEED").unwrap_or_else(|| fastrand::u64(..));
    let faults = number("BLUEBIRD_KUBELET_FAULTS").map_or(FAULTS, |faults| faults as usize);
    println!("BLUEBIRD_SEED={seed} BLUEBIRD_KUBELET_FAULTS={faults}");
    let counts = Run::start(seed).await.suffer(faults).await;
    println!("{counts:#?}");
    println!("0 orphans, 0 double starts of {}, 0 lost exit codes of {}, 0 lost log lines of {}", counts.starts, counts.ends, counts.lines);
    assert_eq!(counts.kills, faults);
    assert!(counts.starts > 0 && counts.ends > 0 && counts.lines > 0, "nothing was tested");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")))
}
