//! Where operating systems differ.

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;

#[cfg(unix)]
mod unix {
    use std::fs::Metadata;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
    use nix::sys::time::TimeValLike as _;
    use nix::unistd::{getgid, getuid, setsid};

    use crate::{Result, files, say};

    /// What asks a process to end, or might.
    const REQUESTS: [Signal; 6] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

    pub(crate) fn user() -> String {
        format!("uid={} gid={}", getuid(), getgid())
    }

    pub(crate) fn kind_of_user() -> &'static str {
        if getuid().is_root() { "root" } else { "user" }
    }

    pub(crate) fn mode(found: &Metadata) -> String {
        format!("{:o}", found.permissions().mode() & 0o7777)
    }

    pub(crate) fn ignore_requests_to_end() -> Result {
        for request in REQUESTS {
            // SAFETY: no handler is installed, and none was.
            unsafe { signal(request, SigHandler::SigIgn) }.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// From now on a request to end is said, and answered with this exit code.
    pub(crate) fn end_when_asked(code: i32) -> Result {
        let requests: SigSet = REQUESTS.into_iter().collect();
        requests.thread_block().map_err(|error| error.to_string())?;
        std::thread::spawn(move || {
            match requests.wait() {
                Ok(request) => drop(say::line(&format!("asked to end by {request}"))),
                Err(error) => eprintln!("testapp: requests to end can't be seen: {error}"),
            }
            files::end(code)
        });
        Ok(())
    }

    /// What is started so is in no group or session of its starter's.
    pub(crate) fn leave_everything(command: &mut Command) {
        // SAFETY: setsid may be called between fork and exec.
        unsafe { command.pre_exec(|| setsid().map(drop).map_err(Into::into)) };
    }

    /// Of this process so far.
    pub(crate) fn processor_time() -> Result<Duration> {
        let used = getrusage(UsageWho::RUSAGE_SELF).map_err(|error| error.to_string())?;
        let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
        Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }
}

#[cfg(windows)]
mod windows {
    use std::fs::Metadata;
    use std::os::windows::process::CommandExt as _;
    use std::process::Command;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::time::Duration;

    use windows_sys::Win32::Foundation::FILETIME;
    use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, CTRL_C_EVENT, SetConsoleCtrlHandler};
    use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
    use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS, GetCurrentProcess, GetProcessTimes};

    use crate::{Result, files, say};

    pub(crate) fn user() -> String {
        format!("user={}", std::env::var("USERNAME").unwrap_or_default())
    }

    /// Wine is no Windows: what passes there may fail here.
    pub(crate) fn kind_of_user() -> &'static str {
        // SAFETY: both names end with a zero, and the library is in every process.
        let is_wine =
            unsafe { GetProcAddress(GetModuleHandleA(c"ntdll.dll".as_ptr().cast()), c"wine_get_version".as_ptr().cast()) }.is_some();
        if is_wine { "wine" } else { "windows" }
    }

    pub(crate) fn mode(found: &Metadata) -> String {
        if found.permissions().readonly() { "read-only" } else { "writable" }.to_owned()
    }

    pub(crate) fn ignore_requests_to_end() -> Result {
        handle_requests(IGNORE)
    }

    /// From now on a request to end is said, and answered with this exit code.
    pub(crate) fn end_when_asked(code: i32) -> Result {
        handle_requests(code)
    }

    /// The exit code that requests are answered with.
    static ANSWER: AtomicI32 = AtomicI32::new(IGNORE);
    /// No answer at all.
    const IGNORE: i32 = i32::MIN;

    fn handle_requests(answer: i32) -> Result {
        ANSWER.store(answer, Ordering::Relaxed);
        // SAFETY: the handler lives as long as the program.
        match unsafe { SetConsoleCtrlHandler(Some(asked), 1) } {
            0 => Err(std::io::Error::last_os_error().to_string()),
            _ => Ok(()),
        }
    }

    /// Runs in a thread of its own.
    unsafe extern "system" fn asked(event: u32) -> windows_sys::core::BOOL {
        let name = match event {
            CTRL_BREAK_EVENT => "CTRL_BREAK",
            CTRL_C_EVENT => "CTRL_C",
            _ => "another event",
        };
        match ANSWER.load(Ordering::Relaxed) {
            IGNORE => 1,
            code => {
                drop(say::line(&format!("asked to end by {name}")));
                files::end(code)
            }
        }
    }

    /// What is started so is in no group or console of its starter's.
    pub(crate) fn leave_everything(command: &mut Command) {
        command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    }

    /// Of this process so far.
    pub(crate) fn processor_time() -> Result<Duration> {
        let zero = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
        let (mut created, mut ended, mut kernel, mut user) = (zero, zero, zero, zero);
        // SAFETY: the handle is this process's, and all four are there to be written.
        if unsafe { GetProcessTimes(GetCurrentProcess(), &mut created, &mut ended, &mut kernel, &mut user) } == 0 {
            return Err(std::io::Error::last_os_error().to_string());
        }
        let ticks = |time: FILETIME| (u64::from(time.dwHighDateTime) << 32) | u64::from(time.dwLowDateTime);
        Ok(Duration::from_nanos((ticks(kernel) + ticks(user)) * 100))
    }
}
