use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The reading end of a pipe that a container writes to.
#[derive(Debug)]
pub(crate) struct Output(PipeReader);

impl Output {
    /// A pipe whose reader never waits, and whose writer does as programs expect.
    pub(super) fn new() -> io::Result<(Self, Stdio)> {
        let (reader, writer) = io::pipe()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self(reader), writer.into()))
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl crate::kubelet::os::Output for Output {}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
