//! What all benches share: the machine, the servers under load, the wire, the report.
//!
//! Servers are processes of their own. The load shares the machine with them, so it does as little as it can: requests and answers stay bytes,
//! and events are counted by skipping from length to length.

#![allow(dead_code, unreachable_pub, reason = "each bench is a program of its own and uses its part of this")]

pub mod etcd;
pub mod machine;
pub mod objects;
pub mod peer;
pub mod raw;
pub mod report;
pub mod server;
pub mod template;
pub mod wire;
pub mod writers;

use std::time::Duration;

/// With `BENCH_QUICK=1` every bench only shows that it works: its figures mean nothing.
pub fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|value| value != "0")
}

/// `full`, or `quick` when only a sign of life is asked for.
pub fn sized<T>(full: T, quick: T) -> T {
    if self::quick() { quick } else { full }
}

/// How long a rate is measured.
pub fn measured_time() -> Duration {
    sized(Duration::from_secs(5), Duration::from_millis(300))
}

/// How long the same load runs before that, so that connections are open and caches warm.
pub fn warm_up_time() -> Duration {
    sized(Duration::from_secs(1), Duration::from_millis(100))
}

/// Whether to run this case: `cargo bench --bench NAME -- TEXT…` picks those whose name contains one of the texts.
pub fn is_wanted(case: &str) -> bool {
    let texts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    texts.is_empty() || texts.iter().any(|text| case.contains(text.as_str()))
}

/// Runs a bench on a runtime with two threads; a failure ends the program with its reason.
pub fn run<F: Future<Output = anyhow::Result<()>>>(name: &str, bench: impl FnOnce(report::Report) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let outcome = report::Report::new(name).and_then(|report| runtime.block_on(bench(report)));
    runtime.shutdown_background();
    if let Err(error) = outcome {
        eprintln!("{name}: {error:#}");
        std::process::exit(1);
    }
}
