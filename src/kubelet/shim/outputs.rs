//! What the containers of a pod write, on its way from their pipes into their logs.

use std::io::{self, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::complaints::complain;
use super::files::Run;
use super::lines::Lines;
use super::log::{Log, Source, stamp};
use crate::kubelet::os::{Bell, Host, Os, Output as _};
use crate::time::Clock;

type HostBell = <Host as Os>::Bell;
type HostOutput = <HostBell as Bell>::Output;

/// What is read with one call, at most.
const CHUNK: usize = 32 * 1024;
/// How much of what a container left in its pipes is read at most when all of it is dead: a process that got away may go on writing.
const REMAINDER: usize = 16 * 1024 * 1024;
/// How often it is tried to say what was lost on a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// The outputs of all containers that run.
#[derive(Debug)]
pub(super) struct Outputs {
    all: Vec<Writing>,
    clock: Clock,
    /// What was read last. One for all: a shim has to be small.
    chunk: Vec<u8>,
    /// Records that are about to be written.
    batch: Vec<u8>,
}

/// One container's.
#[derive(Debug)]
struct Writing {
    container: String,
    log: Log,
    streams: Vec<Stream>,
}

#[derive(Debug)]
struct Stream {
    source: Source,
    output: HostOutput,
    lines: Lines,
    has_ended: bool,
}

/// What a command gets to write to.
#[derive(Debug)]
pub(super) struct Pens {
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
}

impl Outputs {
    pub(super) fn new(clock: Clock) -> Self {
        Self { all: Vec::new(), clock, chunk: Vec::new(), batch: Vec::new() }
    }

    /// Opens the log of a run. It is written until [`Outputs::close`].
    pub(super) fn open(&mut self, run: &Run, bell: &HostBell) -> io::Result<Pens> {
        let folder = run.log.parent().unwrap_or(&run.log);
        let log = Log::open(folder, run.attempt, run.log_limits)?;
        let stream = |source| -> io::Result<(Stream, Stdio)> {
            let (output, pen) = bell.output()?;
            Ok((Stream { source, output, lines: Lines::default(), has_ended: false }, pen))
        };
        let ((out, stdout), (err, stderr)) = (stream(Source::Stdout)?, stream(Source::Stderr)?);
        self.all.push(Writing { container: run.container.clone(), log, streams: vec![out, err] });
        Ok(Pens { stdout, stderr })
    }

    /// Reads what can be read until the bell rings or the time is over.
    pub(super) fn serve(&mut self, bell: &HostBell, timeout: Option<Duration>) -> io::Result<()> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let retry = self.all.iter().any(|writing| writing.log.has_loss()).then_some(RETRY);
            let outputs: Vec<&HostOutput> = self.streams().map(|stream| &stream.output).collect();
            let heard = bell.wait(&outputs, left.into_iter().chain(retry).min())?;
            self.read(&heard.outputs);
            if heard.rang || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(());
            }
            if heard.outputs.is_empty() && retry.is_some() {
                self.tell_losses();
            }
        }
    }

    /// Reads what is left in the pipes of a container of which nothing runs any more, and ends its log.
    pub(super) fn close(&mut self, container: &str) {
        let Some(place) = self.all.iter().position(|writing| writing.container == container) else { return };
        let mut writing = self.all.swap_remove(place);
        let mut left = REMAINDER;
        for index in 0..writing.streams.len() {
            writing.streams[index].output.writers_are_gone();
            while left > 0 && !writing.streams[index].has_ended {
                match self.read_one(&mut writing, index) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
        }
        let time = stamp(&self.clock.now());
        let Writing { log, streams, .. } = &mut writing;
        for stream in streams {
            stream.lines.finish(|tag, text| log.add(&mut self.batch, &time, stream.source, tag, text));
        }
        log.flush(&mut self.batch);
        log.tell(&time);
        if let Some(loss) = log.loss() {
            complain(&format!("the log of container {container} ends without saying so: {loss}"));
        }
    }

    fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter().flat_map(|writing| &writing.streams).filter(|stream| !stream.has_ended)
    }

    /// Reads once from each of these, counted over all that have not ended.
    fn read(&mut self, ready: &[usize]) {
        let mut place = 0;
        let mut all = std::mem::take(&mut self.all);
        for writing in &mut all {
            for index in 0..writing.streams.len() {
                if writing.streams[index].has_ended {
                    continue;
                }
                if ready.contains(&place) {
                    self.read_one(writing, index);
                }
                place += 1;
            }
        }
        self.all = all;
    }

    /// Reads once and writes what came; gives how much that was.
    fn read_one(&mut self, writing: &mut Writing, index: usize) -> usize {
        self.chunk.resize(CHUNK, 0);
        let Writing { container, log, streams } = writing;
        let stream = &mut streams[index];
        let count = match stream.output.read(&mut self.chunk) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return 0,
            Err(error) => {
                complain(&format!("an output of container {container} can't be read any more: {error}"));
                0
            }
        };
        stream.has_ended = count == 0;
        let time = stamp(&self.clock.now());
        stream.lines.push(&self.chunk[..count], |tag, text| log.add(&mut self.batch, &time, stream.source, tag, text));
        if stream.has_ended {
            stream.lines.finish(|tag, text| log.add(&mut self.batch, &time, stream.source, tag, text));
        }
        log.flush(&mut self.batch);
        count
    }

    fn tell_losses(&mut self) {
        let time = stamp(&self.clock.now());
        self.all.iter_mut().for_each(|writing| writing.log.tell(&time));
    }
}
