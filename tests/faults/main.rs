//! Random faults against real apiservers, one with its folder and three on an etcd: every history is linearizable, no watch breaks a guarantee, no acknowledged write is lost.
//!
//! ```sh
//! BLUEBIRD_FAULTS=1000 cargo test --release --test faults folder -- --nocapture
//! ```
//! `BLUEBIRD_SEED` repeats the choices of an earlier run; how they fall in time is up to the machine.
#![cfg(unix)]

mod changes;
mod clients;
mod fault;
mod fleet;
mod history;
mod model;
#[allow(dead_code, reason = "shared with the tests of the executables")]
#[path = "../binaries/program.rs"]
mod program;
mod run;
mod servers;

use bluebird::testing::Etcd;
use run::Run;

/// How many faults there are unless `BLUEBIRD_FAULTS` says otherwise: about half a minute of them.
const FAULTS: usize = 40;
const FAULTS_OF_ETCD: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_break_no_promise_of_an_apiserver_with_a_folder() {
    suffer(None, FAULTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_break_no_promise_of_three_apiservers_on_one_etcd() {
    if let Some(etcd) = Etcd::start(&[]).await {
        suffer(Some(etcd), FAULTS_OF_ETCD).await;
    }
}

async fn suffer(etcd: Option<Etcd>, faults: usize) {
    let seed = number("BLUEBIRD_SEED").unwrap_or_else(|| fastrand::u64(..));
    let faults = number("BLUEBIRD_FAULTS").map_or(faults, |faults| faults as usize);
    println!("BLUEBIRD_SEED={seed} BLUEBIRD_FAULTS={faults}");
    let counts = Run::start(seed, etcd).await.suffer(faults).await;
    println!("{counts:#?}");
    println!("violations: 0 of linearizability, 0 of watches; lost writes: 0 of {} acknowledged", counts.acknowledged);
    assert_eq!(counts.faults.values().sum::<usize>(), faults);
    assert!(counts.operations > faults && counts.acknowledged > 0 && counts.resumes > 0, "nothing was tested");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")))
}
