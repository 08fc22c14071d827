//! The table on the screen and the lines in target/bench.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::json;

use super::server::Process;
use super::{machine, quick};

/// Writes what a bench finds: a row per case for people, a JSON line per case for programs.
pub struct Report {
    bench: String,
    lines: File,
}

/// What one case gave.
pub struct Row {
    pub case: String,
    /// Whose figures these are.
    pub who: &'static str,
    pub operations: u64,
    pub time: Duration,
    pub latency: Histogram<u64>,
    /// What the server process used during the measured time, where this system tells.
    pub server_cpu: Option<Duration>,
    /// Resident memory at the end, and the most that there ever was.
    pub memory: (Option<u64>, Option<u64>),
}

impl Row {
    /// Adds what the same case gave at another time.
    pub fn add(&mut self, other: &Row) -> anyhow::Result<()> {
        self.operations += other.operations;
        self.time += other.time;
        self.latency.add(&other.latency).context("the same bounds")?;
        self.server_cpu = self.server_cpu.zip(other.server_cpu).map(|(one, other)| one + other);
        self.memory = (self.memory.0.max(other.memory.0), self.memory.1.max(other.memory.1));
        Ok(())
    }
}

/// The figures of a row.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Operations per second.
    pub rate: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    /// Microseconds of the server's processor time per operation.
    pub cpu_us: Option<f64>,
    pub rss: Option<u64>,
}

/// A histogram of microseconds, up to two minutes, good to 0.1 %.
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("valid bounds")
}

/// Memory of a server as a row wants it.
pub fn memory_of(process: &Process) -> (Option<u64>, Option<u64>) {
    (process.rss(), process.peak_rss())
}

/// Bytes for people.
pub fn mib(bytes: Option<u64>) -> String {
    bytes.map_or("n/a".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1048576.0))
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
        println!("\nsettings: {text}");
        println!(
            "{:<48} {:<8} {:>10} {:>9} {:>9} {:>10} {:>9} {:>9}",
            "case", "", "ops/s", "p50 ms", "p99 ms", "CPU µs/op", "MiB", "peak MiB"
        );
    }

    /// Something worth knowing that is no row.
    pub fn note(&self, text: &str) {
        println!("  {text}");
    }

    /// Adds a case.
    pub fn row(&mut self, row: &Row) -> anyhow::Result<Figures> {
        let figures = Figures {
            rate: row.operations as f64 / row.time.as_secs_f64(),
            p50_us: row.latency.value_at_quantile(0.5),
            p99_us: row.latency.value_at_quantile(0.99),
            cpu_us: row.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / row.operations.max(1) as f64),
            rss: row.memory.0,
        };
        println!(
            "{:<48} {:<8} {:>10.0} {:>9} {:>9} {:>10} {:>9} {:>9}",
            row.case,
            row.who,
            figures.rate,
            ms(figures.p50_us),
            ms(figures.p99_us),
            figures.cpu_us.map_or("n/a".to_owned(), |cpu| format!("{cpu:.2}")),
            mib(row.memory.0),
            mib(row.memory.1),
        );
        let line = json!({
            "bench": self.bench, "case": row.case, "who": row.who, "ops_s": round(figures.rate), "p50_us": figures.p50_us,
            "p99_us": figures.p99_us, "server_cpu_us_per_op": figures.cpu_us.map(round), "server_rss_bytes": row.memory.0,
            "server_peak_rss_bytes": row.memory.1, "quick": quick(),
        });
        writeln!(self.lines, "{line}")?;
        Ok(figures)
    }

    /// Sets our figures beside another's: each is ours divided by theirs.
    pub fn compare(&self, ours: &Figures, theirs: &Figures) {
        let ratio = |ours: f64, theirs: f64| if theirs > 0.0 { format!("{:.2} ×", ours / theirs) } else { String::new() };
        let maybe = |pair: Option<(f64, f64)>| pair.map_or("n/a".to_owned(), |(ours, theirs)| ratio(ours, theirs));
        let memory = ours.rss.zip(theirs.rss).map(|(ours, theirs)| (ours as f64, theirs as f64));
        println!(
            "{:<48} {:<8} {:>10} {:>9} {:>9} {:>10} {:>9}",
            "",
            "ratio",
            ratio(ours.rate, theirs.rate),
            ratio(ours.p50_us as f64, theirs.p50_us as f64),
            ratio(ours.p99_us as f64, theirs.p99_us as f64),
            maybe(ours.cpu_us.zip(theirs.cpu_us)),
            maybe(memory),
        );
    }
}

/// Milliseconds for people; nothing where nothing was measured.
fn ms(us: u64) -> String {
    if us == 0 { String::new() } else { format!("{:.3}", us as f64 / 1000.0) }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
