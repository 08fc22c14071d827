//! A terminal of which the kubelet holds one end and a command the other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::pty::{PtyMaster, grantpt, posix_openpt, unlockpt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::Command;

use crate::kubelet::os::TerminalSize;

/// What a program takes for the end of its input when it comes at the beginning of a line.
const END_OF_INPUT: &[u8] = &[4];

/// The kubelet's end.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Arc<AsyncFd<File>>);

impl Terminal {
    /// Makes a terminal and gives the command its other end.
    pub(super) fn open(size: TerminalSize, command: &mut Command) -> io::Result<Self> {
        let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let name = name(&ours)?;
        let ours = File::from(OwnedFd::from(ours));
        set_size(&ours, size)?;
        let flags = OFlag::from_bits_retain(fcntl(ours.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(ours.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let theirs = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        // SAFETY: the file owns its descriptor, and is neither replaced nor closed while this lives.
        Ok(Self(Arc::new(unsafe { AsyncFd::register(ours) }?)))
    }

    /// Tells the programs at the other end how large their window is now.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        set_size(self.0.get_ref(), size)
    }
}

fn set_size(terminal: &File, size: TerminalSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointer is to a value of the kind that this request reads.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn name(ours: &PtyMaster) -> io::Result<String> {
    Ok(nix::pty::ptsname_r(ours)?)
}

#[cfg(not(target_os = "linux"))]
fn name(ours: &PtyMaster) -> io::Result<String> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: nobody else calls it meanwhile, and what it returns is copied before anybody can.
    Ok(unsafe { nix::pty::ptsname(ours) }?)
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            match ready.try_io(|terminal| terminal.get_ref().read(buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other end any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            match ready.try_io(|terminal| terminal.get_ref().write(bytes)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no end: the program is told in the way in which a person would.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context, END_OF_INPUT).map_ok(drop)
    }
}
