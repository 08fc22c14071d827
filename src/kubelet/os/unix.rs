//! What Linux and macOS share.

pub(super) mod files;
pub(super) mod guard;
mod guarded;
mod output;
mod raw_terminal;
mod terminal;
pub(super) mod user;

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

pub(crate) use guarded::Guarded;
pub(crate) use output::Output;
pub(crate) use raw_terminal::{RawTerminal, terminal_resizes};

use super::usage::DiskUsage;
use super::{Heard, Reaped};
use crate::api::capability;

/// What a program is told at its start besides arguments and variables, in bytes: its own name, and more.
pub(super) const LENGTH_APART: usize = 8 * 1024;

/// The functions of `Os` that are the same on both: items of its implementations, which import what they name.
macro_rules! shared {
    () => {
        fn ask_to_end_by(main: i32, signal: &str) -> io::Result<()> {
            unix::ask_to_end_by(main, signal)
        }

        fn may_run_as() -> bool {
            nix::unistd::Uid::effective().is_root()
        }

        fn known(user: &str) -> io::Result<Option<Known>> {
            Ok(unix::user::find(user)?.known())
        }

        fn hand_over(folder: &Path, above: &[&Path], user: &str) -> io::Result<()> {
            unix::user::hand_over(folder, above, &unix::user::find(user)?)
        }

        fn make_bell(path: &Path) -> io::Result<()> {
            unix::make_bell(path)
        }

        fn ring(path: &Path, word: &str) -> io::Result<bool> {
            unix::ring(path, word)
        }

        async fn silence(path: &Path) -> io::Result<()> {
            unix::silence(path).await
        }

        fn make_private_folder(path: &Path) -> io::Result<()> {
            unix::make_private_folder(path)
        }

        fn create_private_file(path: &Path) -> io::Result<File> {
            unix::create_private_file(path)
        }

        fn open_private_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
            unix::open_private_file(path, options)
        }

        fn write_files(folder: &Path, files: &Files, access: Access<'_>) -> io::Result<()> {
            unix::files::write_files(folder, files, access)
        }

        fn has_files(folder: &Path) -> bool {
            unix::files::has_files(folder)
        }

        fn link(folder: &Path, path: &str, target: &Path, user: Option<&str>) -> io::Result<()> {
            unix::files::link(folder, path, target, user)
        }

        fn remove_folder(path: &Path) -> io::Result<()> {
            unix::files::remove_folder(path)
        }

        fn sync_folder(folder: &Path) -> io::Result<()> {
            unix::sync_folder(folder)
        }

        fn is_at(file: &File, path: &Path) -> io::Result<bool> {
            unix::is_at(file, path)
        }

        fn is_removed(file: &File) -> io::Result<bool> {
            unix::is_removed(file)
        }

        fn detach() -> io::Result<()> {
            unix::detach()
        }

        fn guard(arguments: &[String]) -> io::Result<()> {
            unix::guard::main(arguments)
        }

        fn raw_terminal() -> io::Result<Option<unix::RawTerminal>> {
            unix::RawTerminal::begin()
        }

        fn terminal_resizes() -> io::Result<impl Stream<Item = ()> + Send + 'static> {
            unix::terminal_resizes()
        }

        fn reap() -> io::Result<Reaped> {
            unix::reap()
        }

        fn ask_to_end(main: i32) -> io::Result<()> {
            unix::ask_to_end(main)
        }

        fn disk_usage(folder: &Path) -> io::Result<DiskUsage> {
            unix::disk_usage(folder)
        }

        fn bytes_on_disk(file: &Metadata) -> u64 {
            unix::bytes_on_disk(file)
        }
    };
}
pub(super) use shared;

/// What every such machine can do.
pub(super) const CAPABILITIES: &[&str] = &[
    "exec.tty",
    capability::FILE_MOUNTS,
    capability::FOLDER_MOUNTS,
    "runtime.process",
    capability::PRIVATE_SECRETS,
    capability::STOP_ASK,
    capability::STOP_SIGNAL,
    "volumes.atomic",
];
/// Variables of the kubelet that a container gets, where they are set.
pub(super) const INHERITED_VARIABLES: &[&str] = &["HOME", "USER", "LANG", "TZ", "TMPDIR"];
/// What stands between the folders of PATH.
pub(super) const PATH_SEPARATOR: &str = ":";
/// PATH for a kubelet that has none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A named pipe by which one process wakes another. It holds words, never decisions: whoever hears it reads the files.
#[derive(Debug)]
pub(crate) struct Bell(File);

impl super::Bell for Bell {
    type Output = Output;

    /// It is open for writing too, so that it never ends.
    fn open(path: &Path) -> io::Result<Self> {
        make_bell(path)?;
        Ok(Self(OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?))
    }

    fn output(&self) -> io::Result<(Output, Stdio)> {
        Output::new()
    }

    fn wait(&self, outputs: &[&Output], timeout: Option<Duration>) -> io::Result<Heard> {
        // A millisecond more than asked for: a wait that ends before its deadline would only be repeated.
        let timeout = timeout.map(|timeout| timeout + Duration::from_millis(1));
        let listened = std::iter::once(self.0.as_fd()).chain(outputs.iter().map(|output| output.as_fd()));
        let mut polled: Vec<PollFd<'_>> = listened.map(|listened| PollFd::new(listened, PollFlags::POLLIN)).collect();
        poll(&mut polled, timeout)?;
        let mut ready = polled.iter().map(|polled| polled.any().unwrap_or(true));
        let rang = ready.next().unwrap_or(false);
        let outputs = ready.enumerate().filter_map(|(place, is_ready)| is_ready.then_some(place)).collect();
        if rang {
            self.take()?;
        }
        Ok(Heard { rang, outputs })
    }

    fn ring_at_child_end(&self) -> io::Result<()> {
        ring_at_child_end(self.0.as_raw_fd())
    }
}

impl Bell {
    /// What was written since the last time.
    fn take(&self) -> io::Result<Vec<u8>> {
        let mut words = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match (&self.0).read(&mut buffer) {
                Ok(0) => return Ok(words),
                Ok(count) => words.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(words),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until there is something to read, or something has broken; for ever without a time.
fn poll(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX));
    match nix::poll::poll(descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a byte to this descriptor whenever a child ends.
fn ring_at_child_end(descriptor: RawFd) -> io::Result<()> {
    CHILD_BELL.store(descriptor, Ordering::Relaxed);
    let action = SigAction::new(SigHandler::Handler(child_ended), SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the handler only writes to a pipe, which is allowed in a signal handler.
    unsafe { signal::sigaction(Signal::SIGCHLD, &action) }?;
    Ok(())
}

static CHILD_BELL: AtomicI32 = AtomicI32::new(-1);

extern "C" fn child_ended(_: libc::c_int) {
    let errno = Errno::last_raw();
    // SAFETY: write is async-signal-safe; the buffer is static. A full pipe rings anyway.
    unsafe { libc::write(CHILD_BELL.load(Ordering::Relaxed), c"\n".as_ptr().cast(), 1) };
    Errno::set_raw(errno);
}

/// The same bell in a program that runs on tokio.
#[derive(Debug)]
pub(crate) struct AsyncBell(AsyncFd<Bell>);

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl super::AsyncBell for AsyncBell {
    fn open(path: &Path) -> io::Result<Self> {
        // SAFETY: the bell owns its descriptor, and neither replaces nor closes it while it lives.
        Ok(Self(unsafe { AsyncFd::register_with_interest(<Bell as super::Bell>::open(path)?, tokio::io::Interest::READABLE) }?))
    }

    async fn heard(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut guard = self.0.readable().await?;
            guard.clear_ready();
            let words = self.0.get_ref().take()?;
            if !words.is_empty() {
                return Ok(words);
            }
        }
    }
}

/// Makes the pipe, unless it is there.
pub(super) fn make_bell(path: &Path) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Rings somebody's bell; false when nobody listens.
pub(super) fn ring(path: &Path, word: &str) -> io::Result<bool> {
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut pipe = match opened {
        Ok(pipe) => pipe,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) || error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match pipe.write_all(format!("{word}\n").as_bytes()) {
        // A full pipe wakes its reader as well.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(true),
    }
}

/// Waits until nobody listens to a bell any more.
pub(super) async fn silence(path: &Path) -> io::Result<()> {
    let pipe = match tokio::net::unix::pipe::OpenOptions::new().open_sender(path) {
        Ok(pipe) => pipe,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) || error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    pipe.ready(tokio::io::Interest::ERROR).await.map(drop)
}

/// Only its owner can read it, whatever the umask.
pub(super) fn create_private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The same for a file that may be there, and be somebody else's to read.
pub(super) fn open_private_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Whether the file that is open is the one at this path now.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, now) = (file.metadata()?, std::fs::metadata(path));
    match now {
        Ok(now) => Ok((open.dev(), open.ino()) == (now.dev(), now.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file that is open has no name left.
pub(super) fn is_removed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

/// Hands the names in a folder to the disk. Some file systems of networks and programs have no such thing.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// A folder that only its owner can look into: what a pod is told may be secret.
pub(super) fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Leaves the session of whoever started this process, and ignores what a terminal or a service supervisor sends to end it.
pub(super) fn detach() -> io::Result<()> {
    // Fails only for the leader of a process group, which has nothing to leave.
    match nix::unistd::setsid() {
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { signal::signal(ignored, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// What a new process does between fork and exec: own session, with the terminal that it reads, if it does; signals as a new program expects them.
pub(super) fn begin_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: system calls without pointers.
    if unsafe { libc::isatty(0) == 1 && libc::ioctl(0, libc::TIOCSCTTY as _, 0) == -1 } {
        return Err(io::Error::last_os_error());
    }
    for default in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGCHLD] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal::signal(default, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Starts a child. Whoever starts it reaps all children itself, whoever they are.
pub(super) fn spawn(command: &mut Command) -> io::Result<i32> {
    Ok(i32::try_from(command.spawn()?.id()).unwrap_or(i32::MAX))
}

/// The next child that has ended, without waiting.
pub(super) fn reap() -> io::Result<Reaped> {
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => Ok(Reaped::Exited { pid: pid.as_raw(), code }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => Ok(Reaped::Signaled { pid: pid.as_raw(), signal: signal as i32 }),
            Ok(WaitStatus::StillAlive) => Ok(Reaped::AllAlive),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => Ok(Reaped::NoChildren),
            Err(error) => Err(error.into()),
        };
    }
}

/// Asks the process group of a container's main process to end; a stopped one is continued, so that it hears it.
pub(super) fn ask_to_end(main: i32) -> io::Result<()> {
    let group = Pid::from_raw(main);
    done_if_gone(signal::killpg(group, Signal::SIGTERM))?;
    done_if_gone(signal::killpg(group, Signal::SIGCONT))
}

/// The same by a signal of the container's choice.
pub(super) fn ask_to_end_by(main: i32, signal: &str) -> io::Result<()> {
    let group = Pid::from_raw(main);
    done_if_gone(signal::killpg(group, signal.parse::<Signal>()?))?;
    done_if_gone(signal::killpg(group, Signal::SIGCONT))
}

pub(super) fn done_if_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How full the file system is that a folder is on.
pub(super) fn disk_usage(folder: &Path) -> io::Result<DiskUsage> {
    let counts = nix::sys::statvfs::statvfs(folder)?;
    // What these are differs between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let (block, total, free) = (counts.fragment_size() as u64, counts.blocks() as u64, counts.blocks_free() as u64);
    Ok(DiskUsage { used: total.saturating_sub(free) * block, total: total * block })
}

/// How many bytes of the disk a file takes.
pub(super) fn bytes_on_disk(file: &Metadata) -> u64 {
    // In units of 512 bytes, whatever the file system's are.
    file.blocks() * 512
}

/// The machine's own name.
pub(super) fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// The kernel's own version.
pub(super) fn kernel_version() -> String {
    nix::sys::utsname::uname().map(|system| system.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Waits until somebody asks this program to end: SIGINT, SIGTERM, or SIGHUP of a terminal that goes away. Gives the signal's name.
pub(super) async fn end_signal() -> io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    })
}
