//! The machine that the figures belong to.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use super::sized;

/// Processor, cores, memory, kernel and disk, each as far as this system tells.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or("?".to_owned(), |cores| cores.to_string());
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| format!("{} (model not readable here)", std::env::consts::ARCH));
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kib| kib.trim_end_matches(" kB").parse::<f64>().ok());
    let memory = memory.map_or("memory not readable here".to_owned(), |kib| format!("{:.1} GiB", kib / 1024.0 / 1024.0));
    let kernel =
        std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or("version not readable here".to_owned(), |text| text.trim().to_owned());
    let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next().map(str::to_owned));
    let load = load.map_or(String::new(), |load| format!(", load {load} before the start"));
    format!("{cpu}, {cores} cores, {memory}, {} {kernel}{load}; {}", std::env::consts::OS, sync_time())
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().find(|line| line.starts_with(name))?.split_once(':')?;
    Some(value.trim().to_owned())
}

/// How long this disk takes to make 4 KiB durable at the end of a file.
fn sync_time() -> String {
    let measure = || -> std::io::Result<f64> {
        let folder = tempfile::tempdir_in(data_root())?;
        let mut file = File::create(folder.path().join("sync"))?;
        let mut times = Vec::new();
        for _ in 0..sized(200, 20) {
            file.write_all(&[7; 4096])?;
            let start = Instant::now();
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64() * 1000.0)
    };
    measure().map_or_else(|error| format!("disk not measured: {error}"), |ms| format!("fdatasync p50 {ms:.2} ms"))
}

/// Where servers keep their data during a bench: on the disk that the target folder is on, since /tmp may be memory.
pub fn data_root() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}
