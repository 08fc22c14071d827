//! What a container writes, read by a thread, since nobody can wait for several pipes at once.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::bell::{Signal, thread};

/// How long what is on its way may take to come, when nothing writes any more: the pipe has to be seen to be closed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The most bytes that are read ahead of whoever takes them; then the container is held up.
const AHEAD: usize = 64 * 1024;
const PIECE: usize = 16 * 1024;

/// The reading end of a pipe that a container writes to.
#[derive(Debug)]
pub(crate) struct Output {
    ahead: Arc<Ahead>,
    /// Nothing writes to it any more.
    is_last: bool,
}

#[derive(Debug, Default)]
struct Ahead {
    state: Mutex<State>,
    /// Bytes came or were taken, or it is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    /// Nothing comes any more.
    is_over: bool,
    /// Nobody takes it any more.
    is_abandoned: bool,
}

impl Output {
    /// A pipe from a command, which gets the second.
    pub(super) fn new(signal: Arc<Signal>) -> io::Result<(Self, Stdio)> {
        let (reader, writer) = io::pipe()?;
        let ahead = Arc::<Ahead>::default();
        let filled = ahead.clone();
        thread("output", move || filled.fill(reader, &signal))?;
        Ok((Self { ahead, is_last: false }, writer.into()))
    }

    /// Bytes, or the end, are there.
    pub(super) fn is_readable(&self) -> bool {
        let state = self.ahead.state.lock().unwrap_or_else(PoisonError::into_inner);
        !state.bytes.is_empty() || state.is_over
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.ahead.state.lock().unwrap_or_else(PoisonError::into_inner);
        let awaits = |state: &mut State| state.bytes.is_empty() && !state.is_over;
        if self.is_last {
            state = self.ahead.changed.wait_timeout_while(state, LAST_WORDS, awaits).unwrap_or_else(PoisonError::into_inner).0;
        }
        if awaits(&mut state) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = state.bytes.read(buffer)?;
        self.ahead.changed.notify_all();
        Ok(count)
    }
}

impl crate::kubelet::os::Output for Output {
    fn writers_are_gone(&mut self) {
        self.is_last = true;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.ahead.state.lock().unwrap_or_else(PoisonError::into_inner).is_abandoned = true;
        self.ahead.changed.notify_all();
    }
}

impl Ahead {
    /// Reads to the end, which is there when nobody has the other end of the pipe any more.
    fn fill(&self, mut reader: PipeReader, signal: &Signal) {
        let mut piece = vec![0; PIECE];
        loop {
            // An error means the same here: a pipe only breaks.
            let count = reader.read(&mut piece).unwrap_or(0);
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = |state: &mut State| state.bytes.len() + count > AHEAD && !state.is_abandoned;
            let mut state = self.changed.wait_while(state, is_full).unwrap_or_else(PoisonError::into_inner);
            state.is_over = count == 0;
            if !state.is_abandoned {
                state.bytes.extend(&piece[..count]);
            }
            drop(state);
            self.changed.notify_all();
            signal.ring_for_output();
            if count == 0 {
                return;
            }
        }
    }
}
