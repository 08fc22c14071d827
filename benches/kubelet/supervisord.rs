//! supervisord (http://supervisord.org), asked over its XML-RPC to start the same program.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::command;
use super::common::report::{Figures, Report, Row, latencies, memory_of};
use super::common::server::{Process, cpu_between};

/// How long it may take until it answers.
const DEADLINE: Duration = Duration::from_secs(30);

/// One of them, with as many programs that it has not started.
pub(crate) struct Supervisord {
    pub(crate) process: Process,
    port: u16,
    _folder: TempDir,
}

/// What it runs as `one`.
pub(crate) struct Program<'a> {
    pub(crate) command: &'a [&'a str],
    /// More lines of its section.
    pub(crate) settings: &'a str,
}

/// Starts every program one after the other, and ends each before the next.
pub(crate) fn bench(report: &mut Report, program: &Path, rounds: usize, pods: &Figures) -> anyhow::Result<()> {
    for (case, wait) in [("startProcess until RUNNING", true), ("startProcess until forked", false)] {
        // As a pod of the bench: killed at once.
        let supervisord = Supervisord::start(program, &Program { command: &command(), settings: "stopsignal=KILL" })?;
        let (cpu, mut time, mut latency) = (supervisord.process.cpu(), Duration::ZERO, latencies());
        for _ in 0..rounds {
            let start = Instant::now();
            supervisord.call("supervisor.startProcess", wait)?;
            latency.saturating_record(start.elapsed().as_micros() as u64);
            time += start.elapsed();
            supervisord.call("supervisor.stopProcess", true)?;
        }
        let server_cpu = cpu_between(cpu, supervisord.process.cpu());
        let (operations, memory) = (rounds as u64, memory_of(&supervisord.process));
        let row = Row { case: case.to_owned(), who: "superv.", operations, time, latency, server_cpu, memory };
        let figures = report.row(&row)?;
        report.compare(pods, &figures);
    }
    Ok(())
}

impl Supervisord {
    /// Where there is one.
    pub(crate) fn find() -> Option<PathBuf> {
        let program = std::env::var_os("SUPERVISORD").map_or_else(|| "supervisord".into(), PathBuf::from);
        let ended = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success()).then_some(program)
    }

    pub(crate) fn start(program: &Path, one: &Program<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = bluebird::testing::free_port();
        let mut config = format!(
            "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={}\n",
            folder.path().join("pid").display()
        );
        write!(config, "[inet_http_server]\nport=127.0.0.1:{port}\n[rpcinterface:supervisor]\n")?;
        writeln!(config, "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface")?;
        // As a pod of the bench: no time to be sure that it runs, its words kept.
        writeln!(config, "[program:one]\ncommand={}\nautostart=false\nstartsecs=0\n{}", one.command.join(" "), one.settings)?;
        writeln!(config, "stdout_logfile={}\nredirect_stderr=true", folder.path().join("log").display())?;
        let path = folder.path().join("supervisord.conf");
        std::fs::write(&path, config)?;
        let process = Process::start("supervisord", Command::new(program).arg("-c").arg(path).stdout(Stdio::null()).stderr(Stdio::null()))?;
        let supervisord = Self { process, port, _folder: folder };
        let begun = Instant::now();
        while supervisord.request("<methodCall><methodName>supervisor.getState</methodName></methodCall>").is_err() {
            ensure!(begun.elapsed() < DEADLINE, "supervisord does not answer");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(supervisord)
    }

    pub(crate) fn call(&self, method: &str, wait: bool) -> anyhow::Result<()> {
        let parameters = format!("<param><value>one</value></param><param><value><boolean>{}</boolean></value></param>", u8::from(wait));
        let answer = self.request(&format!("<methodCall><methodName>{method}</methodName><params>{parameters}</params></methodCall>"))?;
        ensure!(answer.contains("<boolean>1</boolean>"), "{method}: {answer}");
        Ok(())
    }

    fn request(&self, body: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        let length = body.len();
        write!(stream, "POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\n\r\n{body}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).context("no answer of HTTP")
    }
}

impl Drop for Supervisord {
    /// What it started would outlive it.
    fn drop(&mut self) {
        if let Err(error) = self.request("<methodCall><methodName>supervisor.stopAllProcesses</methodName></methodCall>") {
            eprintln!("processes of supervisord may be left: {error}");
        }
    }
}
