//! The terminal that this program itself is used in.

use std::io::{self, IsTerminal as _};

use futures_util::stream::{self, Stream};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// As it was before, to be so again when this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` when standard input is no terminal.
    pub(crate) fn begin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _restored = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Tells of every SIGWINCH.
pub(crate) fn terminal_resizes() -> io::Result<impl Stream<Item = ()> + Send + 'static> {
    let changed = signal(SignalKind::window_change())?;
    Ok(stream::unfold(changed, |mut changed| async move { changed.recv().await.map(|()| ((), changed)) }))
}
