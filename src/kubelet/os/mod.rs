//! Everything that differs from one operating system to another: the trait [`Os`], which the type `Host` of each file implements. What a
//! system lacks it says by [`Os::CAPABILITIES`] or `io::ErrorKind::Unsupported`.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::shim::files::{Cause, Run};
use fence::Places;
use length::Lengths;
use usage::{DiskUsage, MachineUsage, ProcessUsage};

pub(crate) mod fence;
pub(crate) mod length;
pub(crate) mod usage;

#[cfg(unix)]
mod unix;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub(crate) use linux::Host;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::Host;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::Host;

/// Waits until somebody asks this program to end: SIGINT or SIGTERM, or Ctrl-C. Gives the name of what it was.
///
/// # Errors
/// What the system says when it can't be waited for.
pub async fn asked_to_end() -> io::Result<&'static str> {
    Host::end_signal().await
}

/// Runs this program to its end. Where whatever supervises services wants to be told how far it is, and tells it itself when to end, that is done, and what the
/// program prints goes to `log`, since it goes nowhere else; everywhere else it is merely run.
///
/// # Errors
/// Those of the program, and what the system says when it can't be told.
pub fn supervised<E: From<io::Error> + Send + 'static>(log: &Path, run: impl FnOnce() -> Result<(), E> + Send + 'static) -> Result<(), E> {
    Host::supervised(log, run)
}

/// Lets the terminal that standard input is hand over every key as it is pressed, also Ctrl-C, and show nothing of it, until what is returned is dropped.
/// `None` when standard input is no terminal.
///
/// # Errors
/// What the system says when the terminal can't be changed.
pub fn raw_terminal() -> io::Result<Option<Box<dyn Send>>> {
    Ok(Host::raw_terminal()?.map(|raw| Box::new(raw) as _))
}

/// Tells whenever the size of this program's terminal may have changed.
///
/// # Errors
/// What the system says when that can't be known.
pub fn terminal_resizes() -> io::Result<Pin<Box<dyn Stream<Item = ()> + Send>>> {
    Ok(Box::pin(Host::terminal_resizes()?))
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
compile_error!("BlueBird runs on Linux, macOS and Windows; another system needs a file in src/kubelet/os");

/// A process, as far as telling whose it is needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
}

/// What [`Os::reap`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// A child ended by returning a code.
    Exited {
        /// Which.
        pid: i32,
        /// What it returned.
        code: i32,
    },
    /// A child was ended by a signal.
    #[cfg_attr(windows, expect(dead_code, reason = "what is killed there has an exit code, too"))]
    Signaled {
        /// Which.
        pid: i32,
        /// The signal's number.
        signal: i32,
    },
    /// A child has ended, as has all of its container, since that has reached its limit of memory.
    #[cfg_attr(unix, expect(dead_code, reason = "there the fence knows it"))]
    OutOfMemory {
        /// Which.
        pid: i32,
    },
    /// There are children, and they live.
    AllAlive,
    /// There are no children, and so no descendants.
    NoChildren,
}

/// Files by their paths, which have `/` between their parts.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Who may read files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// Their owner: this user, or else whom this process is.
    Private(Option<&'a str>),
    /// Everybody who gets to their folder.
    Readable,
}

/// An operating system, as the kubelet and its shims use it.
pub(crate) trait Os {
    /// What every machine with this system can do, and others might not: capabilities of a node.
    const CAPABILITIES: &'static [&'static str];
    /// What a kubelet with this root folder can do besides, found by trying it there. `program` is the executable that plays roles.
    fn try_out(_root: &Path, _program: &Path) -> Vec<&'static str> {
        Vec::new()
    }
    /// As container images and the label `kubernetes.io/os` name it.
    const NAME: &'static str;
    /// Variables of the kubelet that a container gets, where they are set.
    const INHERITED_VARIABLES: &'static [&'static str];
    /// What stands between the folders of PATH.
    const PATH_SEPARATOR: &'static str;
    /// PATH for a kubelet that has none.
    const DEFAULT_PATH: &'static str;

    /// A shim's bell.
    type Bell: Bell;
    /// A kubelet's bell.
    type AsyncBell: AsyncBell;
    /// A command that was started in a container, besides what the container is.
    type Guarded: Guarded;
    /// A terminal that hands over keys as they are pressed, until this is dropped.
    type RawTerminal: Send + 'static;

    /// Makes a bell, unless it is there.
    fn make_bell(path: &Path) -> io::Result<()>;

    /// Rings somebody's bell; false when nobody listens.
    fn ring(path: &Path, word: &str) -> io::Result<bool>;

    /// Waits until nobody listens to a bell any more.
    fn silence(path: &Path) -> impl Future<Output = io::Result<()>> + Send;

    /// A folder that only its owner can look into: what a pod is told may be secret.
    fn make_private_folder(path: &Path) -> io::Result<()>;

    /// A new file, or an emptied one, that only its owner can read.
    fn create_private_file(path: &Path) -> io::Result<File>;

    /// Opens a file as the options say; only its owner can read it from then on, whoever made it.
    fn open_private_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        options.open(path)
    }

    /// Writes a whole file that only its owner can read, so that a reader sees the old content or the new one, and nothing in between.
    fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        Self::create_private_file(&temporary)?.write_all(content)?;
        Self::replace(path, &temporary)
    }

    /// As [`Os::write_atomically`], and when the machine loses its power there is the old file or the new one, whole.
    fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = path.with_extension("new");
        let mut file = Self::create_private_file(&temporary)?;
        file.write_all(content)?;
        // Before it has its name: there are file systems where the name is on the disk first.
        file.sync_data()?;
        drop(file);
        Self::replace(path, &temporary)
    }

    /// As [`Os::write_synced`], and from then on there is the new one.
    fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
        Self::write_synced(path, content)?;
        path.parent().map_or(Ok(()), Self::sync_folder)
    }

    /// Hands the names in a folder to the disk, where a file system can be asked for that.
    fn sync_folder(_folder: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Writes as `write` does. Where no new file can be made, since the disk is full or the folder read-only, the old one is overwritten as far
    /// as it has room: a reader may then see something in between, and the machine may leave that behind when it loses its power.
    fn write_whatever_it_takes(path: &Path, content: &[u8], write: fn(&Path, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let Err(error) = write(path, content) else { return Ok(()) };
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{} can't be written: {error}", path.display()));
        let Ok(mut old) = File::options().write(true).open(path) else { return Err(about(error)) };
        // As much as a file of its size has on any disk, so that it never ends half written.
        if content.len() as u64 > old.metadata()?.len().next_multiple_of(BLOCK) {
            return Err(about(error));
        }
        old.write_all(content).and_then(|()| old.set_len(content.len() as u64)).and_then(|()| old.sync_data()).map_err(about)
    }

    /// Gives a new file the name of an old one.
    fn replace(old: &Path, new: &Path) -> io::Result<()> {
        std::fs::rename(new, old)
    }

    /// Whether the file that is open is the one at this path now.
    fn is_at(_file: &File, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    /// Whether a file that is open, and is not at its path any more, was removed. Otherwise it may have been moved with a folder above it, or be on a disk
    /// that was unmounted, and come back.
    fn is_removed(_file: &File) -> io::Result<bool> {
        Ok(true)
    }

    /// Closes, for this thread alone, the files that the process has open, where the system can do that: a thread that the system doesn't let end would
    /// hold them, and their locks, also after the end of the process.
    fn let_go_of_files() {}

    /// Makes a folder, which exists, have exactly these files and whoever `access` says able to read them: all at once where
    /// the node has the capability `volumes.atomic`, else one after the other, each whole. Files that are so already are left alone.
    fn write_files(folder: &Path, files: &Files, access: Access<'_>) -> io::Result<()>;

    /// Whether a folder has files that [`Os::write_files`] has written.
    fn has_files(folder: &Path) -> bool;

    /// Makes a link at a path below a folder, and the folders on the way to it, which are the user's if there is one; a link that is there is replaced,
    /// anything else is an error.
    fn link(folder: &Path, path: &str, target: &Path, user: Option<&str>) -> io::Result<()>;

    /// Removes a folder with all that is in it, if there is one: links, and not what they lead to.
    fn remove_folder(path: &Path) -> io::Result<()>;

    /// Leaves the session of whoever started this process, and ignores what a terminal or a service supervisor sends to end it.
    fn detach() -> io::Result<()>;

    /// Makes the orphans among the descendants of this process its children, so that none gets away by forking twice.
    fn adopt_orphans() -> io::Result<()>;

    /// Starts the main process of a container, in a session of its own; gives its pid. Where the system can do it, it and all that it starts
    /// end with this process.
    /// It joins the run's fence, which has been raised, and is whom the run says.
    fn spawn(command: &mut Command, run: &Run) -> io::Result<i32>;

    /// The same by a signal, where there are such things.
    fn ask_to_end_by(_main: i32, signal: &str) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("this system has no {signal}")))
    }

    /// The same by Ctrl-Break, where there are consoles: see the capability `stop.ctrl-break`.
    fn ask_to_end_by_break(_main: i32) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Ctrl-Break"))
    }

    /// The executable of this process, also when it has been replaced by another one meanwhile, where the system knows it then.
    fn own_program() -> io::Result<PathBuf> {
        std::env::current_exe()
    }

    /// Whether containers can run as somebody else than this process.
    fn may_run_as() -> bool {
        false
    }

    /// Whom `USER` or `USER:GROUP` means; `None` for a number that no account has.
    ///
    /// # Errors
    /// When there is no such user or group: a sentence.
    fn known(user: &str) -> io::Result<Option<Known>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("this system can't run a container as {user}")))
    }

    /// Gives a user a folder that it shares with nobody but other users of the pod; `above` are those that it has to pass.
    fn hand_over(_folder: &Path, _above: &[&Path], user: &str) -> io::Result<()> {
        Self::known(user).map(drop)
    }

    /// What names this time that the machine is up; empty where nothing does.
    fn boot_id() -> String {
        String::new()
    }

    /// Why the system takes a file for no program, although it may be executed. It is told by this word, since its path may be secret.
    fn why_no_program(_file: &Path, _word: &str) -> Option<String> {
        None
    }

    /// Where a kubelet with this root folder may raise fences, found by trying. Without a place for a kind of limit it isn't enforced.
    fn places(_root: &Path) -> Places {
        Places::default()
    }

    /// Guards one command, in a process of its own, where the system needs that: see [`Guarded`]. The arguments are what follows the role.
    fn guard(arguments: &[String]) -> io::Result<()>;

    /// Plays a role that only this system's kubelets need, and gives the exit code to end with; `None` for what is no such role.
    fn play(_role: &str) -> Option<i32> {
        None
    }

    /// Starts a shim, which outlives this process.
    fn spawn_shim(command: &mut tokio::process::Command) -> io::Result<tokio::process::Child> {
        command.spawn()
    }

    /// How much a program can be told at its start.
    fn lengths() -> Lengths {
        Lengths::NO_BOUND
    }

    /// The next child that has ended, without waiting.
    fn reap() -> io::Result<Reaped>;

    /// Asks a container's main process, and what belongs to it, to end.
    fn ask_to_end(main: i32) -> io::Result<()>;

    /// Kills one process of ours.
    fn kill(pid: i32) -> io::Result<()>;

    /// Kills a process if it is what it is taken for: its number can't change hands after `is_doomed` has looked. False when it isn't, or is gone.
    fn kill_if(pid: i32, is_doomed: impl FnOnce() -> bool) -> io::Result<bool>;

    /// When a process was started, in a unit of the system's own: with its pid it names the process for as long as the machine is up. `None` when
    /// there is no such process, or nobody can tell.
    fn start_time(_pid: i32) -> Option<u64> {
        None
    }

    /// All living processes.
    fn processes() -> io::Result<Vec<Process>>;

    /// All living descendants of a process, parents before their children.
    fn descendants(ancestor: i32) -> io::Result<Vec<Process>> {
        let all = Self::processes()?;
        let mut found = Vec::new();
        let mut parents = vec![ancestor];
        while let Some(parent) = parents.pop() {
            for process in all.iter().filter(|process| process.parent == parent) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
        Ok(found)
    }

    /// The value of a variable in the environment that a process was started with.
    fn variable_of(pid: i32, name: &str) -> Option<String>;

    /// Kills every process whose environment `is_doomed`, and gives which there were.
    fn kill_all(is_doomed: impl Fn(&dyn Fn(&str) -> Option<String>) -> bool) -> io::Result<Vec<i32>>;

    /// What all living processes use, as far as this one may know it.
    fn process_usage() -> io::Result<Vec<ProcessUsage>>;

    /// What the machine uses.
    fn machine_usage() -> io::Result<MachineUsage>;

    /// How full the file system is that a folder is on.
    fn disk_usage(folder: &Path) -> io::Result<DiskUsage>;

    /// How many bytes of the disk a file takes.
    fn bytes_on_disk(file: &Metadata) -> u64 {
        file.len()
    }

    /// The machine's own name.
    fn hostname() -> String;

    /// The kernel's own version.
    fn kernel_version() -> String;

    /// How much memory the machine has, in bytes.
    fn memory_bytes() -> io::Result<u64>;

    /// Waits until somebody asks this program to end; gives the name of what it was.
    fn end_signal() -> impl Future<Output = io::Result<&'static str>> + Send;

    /// See [`supervised`].
    fn supervised<E: From<io::Error> + Send + 'static>(_log: &Path, run: impl FnOnce() -> Result<(), E> + Send + 'static) -> Result<(), E> {
        run()
    }

    /// See [`raw_terminal`].
    fn raw_terminal() -> io::Result<Option<Self::RawTerminal>>;

    /// See [`terminal_resizes`].
    fn terminal_resizes() -> io::Result<impl Stream<Item = ()> + Send + 'static>;
}

/// Kills again and again, since a process may start others while it is looked for, until there was nothing to kill; gives how much there was.
///
/// # Errors
/// When something doesn't end although it was killed.
pub(crate) fn until_none_is_left(kill: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    until_none_is_left_within(&PAUSES, kill)
}

/// The same for whoever holds up others meanwhile.
pub(crate) fn briefly_until_none_is_left(kill: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    until_none_is_left_within(&PAUSES[..BRIEFLY], kill)
}

fn until_none_is_left_within(pauses: &[u64], mut kill: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let mut killed = 0;
    for pause in pauses.iter().copied() {
        match kill()? {
            0 => return Ok(killed),
            more => killed += more,
        }
        #[allow(clippy::disallowed_methods, reason = "the kernel tells nobody when the process of a stranger has ended")]
        std::thread::sleep(Duration::from_millis(pause));
    }
    Err(io::Error::other("what was killed does not end"))
}

/// Between two looks, in milliseconds: a killed process may be seen for a moment.
const PAUSES: [u64; 14] = [0, 0, 0, 0, 1, 1, 2, 5, 10, 20, 50, 100, 200, 300];
/// How many of them there are for whoever holds up others.
const BRIEFLY: usize = 10;

/// What a file takes on a disk, at least.
const BLOCK: u64 = 4096;

/// A user as programs are told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
}

/// By which one process wakes another: what a shim listens to. It holds words, never decisions: whoever hears it reads the files.
pub(crate) trait Bell: Sized {
    /// What a container writes to one of its outputs.
    type Output: Output;

    /// Makes it if there is none, and listens.
    fn open(path: &Path) -> io::Result<Self>;

    /// A pipe from a command, which gets the second, to whoever waits for the bell.
    fn output(&self) -> io::Result<(Self::Output, Stdio)>;

    /// Waits until it rings, something can be read from an output, or the time is over; and silences it.
    fn wait(&self, outputs: &[&Self::Output], timeout: Option<Duration>) -> io::Result<Heard>;

    /// The end of any child rings it.
    fn ring_at_child_end(&self) -> io::Result<()>;
}

/// What a container writes to one of its outputs. Reading it never waits: it says `WouldBlock` when there is nothing for now, and gives 0 bytes when
/// nothing will come any more.
pub(crate) trait Output: io::Read + std::fmt::Debug {
    /// To be said when nothing runs any more that could write. From now on reading may wait a moment for what is on its way.
    fn writers_are_gone(&mut self) {}
}

/// Why a wait for a bell ended. Nothing: the time is over, or something disturbed it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// It rang.
    pub(crate) rang: bool,
    /// The outputs that can be read, by their places in the list; one that has come to its end is among them.
    pub(crate) outputs: Vec<usize>,
}

/// The same in a program that runs on tokio.
pub(crate) trait AsyncBell: Sized + Send + Sync + 'static {
    /// As [`Bell::open`].
    fn open(path: &Path) -> io::Result<Self>;

    /// Waits until it rings: the words, one per line, that came since the last time. The last may be cut short when there were too many.
    fn heard(&self) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}

/// The first argument of a process that is to guard a command.
pub(crate) const GUARD_ROLE: &str = "exec-guard";

/// A command with all that it has started. All of it ends when this is dropped, and when this process ends, however it ends; and what the command has
/// started ends with the command.
pub(crate) trait Guarded: Sized + Send + Sync + 'static {
    /// Starts the command of a run in its environment and folder. `program` is the executable that may be run in [`GUARD_ROLE`]. That it can't be
    /// executed is told by [`Guarded::ended`].
    fn start(program: &Path, run: &Run, wiring: Wiring) -> impl Future<Output = io::Result<(Self, Streams)>> + Send;

    /// Waits until nothing of it is left; how it ended. Cancelling this loses nothing. An error when that can't be known.
    fn ended(&mut self) -> impl Future<Output = io::Result<Cause>> + Send;

    /// Tells a command with a terminal how large its window is now.
    fn resize(&self, size: TerminalSize) -> io::Result<()>;
}

/// How a command is to be wired up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wiring {
    /// It has a standard input; otherwise it reads nothing.
    pub(crate) stdin: bool,
    /// It runs in a terminal of this size.
    pub(crate) terminal: Option<TerminalSize>,
}

/// The size of a terminal's window, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// Our ends of a command's streams.
pub(crate) struct Streams {
    /// Shutting it down closes the command's input. What is merely dropped doesn't look complete: the input is open until nothing of the command is left.
    pub(crate) stdin: Option<Box<dyn AsyncWrite + Send + Sync + Unpin>>,
    pub(crate) stdout: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// `None` in a terminal, where everything is written to one place.
    pub(crate) stderr: Option<Box<dyn AsyncRead + Send + Sync + Unpin>>,
}
