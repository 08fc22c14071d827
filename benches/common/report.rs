//! The table on the screen and the lines in target/bench.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::json;

use super::{machine, quick};

/// Writes what a bench finds: a row per case for people, a JSON line per case for programs.
pub struct Report {
    bench: String,
    lines: File,
}

/// What a case was run with: how many of whom.
#[derive(Clone, Copy)]
pub enum Load {
    Clients(usize),
    Watchers(usize),
}

/// What one case gave.
pub struct Row {
    pub case: String,
    pub load: Load,
    pub operations: u64,
    pub time: Duration,
    pub latency: Histogram<u64>,
    /// What the server process used during the measured time, where this system tells.
    pub server_cpu: Option<Duration>,
    pub server_rss: Option<u64>,
}

/// A histogram of microseconds, up to two minutes, good to 0.1 %.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds")
}

impl Report {
    /// Begins with what the figures belong to.
    pub fn new(bench: &str) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("the target folder")?.join("bench");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{bench}.jsonl"));
        let lines = OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
        println!("\n{bench}: {}", machine::describe());
        if quick() {
            println!("BENCH_QUICK: a sign of life only, the figures mean nothing");
        }
        Ok(Self { bench: bench.to_owned(), lines })
    }

    /// Tells what the following cases are run with.
    pub fn settings(&self, text: &str) {
        println!("settings: {text}\n");
        println!("{:<44} {:>11} {:>10} {:>10} {:>12} {:>11}", "case", "ops/s", "p50 ms", "p99 ms", "CPU µs/op", "server MiB");
    }

    /// Something worth knowing that is no row.
    pub fn note(&self, text: &str) {
        println!("  {text}");
    }

    /// Adds a case and returns its rate.
    pub fn row(&mut self, row: &Row) -> anyhow::Result<f64> {
        let rate = row.operations as f64 / row.time.as_secs_f64();
        let cpu = row.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / row.operations.max(1) as f64);
        let (p50, p99) = (row.latency.value_at_quantile(0.5), row.latency.value_at_quantile(0.99));
        println!(
            "{:<44} {:>11.0} {:>10.3} {:>10.3} {:>12} {:>11}",
            row.case,
            rate,
            p50 as f64 / 1000.0,
            p99 as f64 / 1000.0,
            cpu.map_or("n/a".to_owned(), |cpu| format!("{cpu:.2}")),
            row.server_rss.map_or("n/a".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1024.0 / 1024.0)),
        );
        let mut line = json!({
            "bench": self.bench, "case": row.case, "ops_s": round(rate), "p50_us": p50, "p99_us": p99,
            "server_cpu_us_per_op": cpu.map(round), "server_rss_bytes": row.server_rss, "quick": quick(),
        });
        match row.load {
            Load::Clients(clients) => line["clients"] = json!(clients),
            Load::Watchers(watchers) => line["watchers"] = json!(watchers),
        }
        writeln!(self.lines, "{line}")?;
        Ok(rate)
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
