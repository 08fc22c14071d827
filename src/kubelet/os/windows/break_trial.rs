//! Whether Ctrl-Break reaches what shims start, found by trying: Wine has none, and who has no console can't send it. A kubelet starts this program once
//! more as it starts shims; that one starts another as shims start containers, and sends it Ctrl-Break.

use std::io::{self, Read as _, Write as _};
use std::os::windows::io::AsHandle as _;
use std::os::windows::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use windows_sys::Win32::System::Console::{CTRL_BREAK_EVENT, SetConsoleCtrlHandler};
use windows_sys::Win32::System::Threading::{CREATE_NEW_PROCESS_GROUP, CREATE_SUSPENDED};
use windows_sys::core::BOOL;

use super::job::Job;
use super::{check, children, console, process};

/// The first argument of who sends it, and of who waits for it.
const SENDER: &str = "break-trial";
const TARGET: &str = "break-trial-target";
/// What both return when it has come; nothing returns it by chance.
const HAS_COME: i32 = 77;
const FAILED: i32 = 1;
/// How long it is waited for. It takes no time where it comes at all.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long all of it may take. It takes as long only while the machine is too busy to start two programs, as when it has just been started itself.
const LONGEST: Duration = Duration::from_secs(30);
/// How often it is tried when it takes longer: that shows nothing.
const TRIALS: usize = 2;

/// Whether it does. It may take a minute.
pub(super) fn arrives(program: &Path) -> bool {
    let found = judge(|| try_out(program));
    match &found {
        Ok(true) => {}
        Ok(false) => tracing::info!("Ctrl-Break reaches nobody here: containers aren't asked to end, unless they say how"),
        Err(error) => {
            tracing::warn!(%error, "whether Ctrl-Break reaches anybody can't be tried: containers aren't asked to end, unless they say how")
        }
    }
    found.unwrap_or(false)
}

/// What trials show, of which each gives what the program returned, and `None` when it took too long.
fn judge(mut trial: impl FnMut() -> io::Result<Option<i32>>) -> io::Result<bool> {
    for number in 1..=TRIALS {
        match trial()? {
            Some(returned) => return Ok(returned == HAS_COME),
            None => tracing::warn!(number, ?LONGEST, "whether Ctrl-Break reaches anybody takes too long to try"),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long each time"))
}

fn try_out(program: &Path) -> io::Result<Option<i32>> {
    // Whatever is left of the trial ends with it.
    let job = Job::new()?;
    let mut command = Command::new(program);
    command.arg(SENDER).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut sender = command.creation_flags(children::SHIM | CREATE_SUSPENDED).spawn()?;
    if let Err(error) = job.assign(sender.as_handle()).and_then(|()| process::resume(sender.as_handle())) {
        sender.kill()?;
        return Err(error);
    }
    process::exit_code_within(sender.as_handle(), LONGEST)
}

/// Plays one of the two roles, and gives the exit code.
pub(super) fn play(role: &str) -> Option<i32> {
    let played = match role {
        SENDER => send(),
        TARGET => wait(),
        _ => return None,
    };
    Some(played.unwrap_or(FAILED))
}

fn send() -> io::Result<i32> {
    console::prepare()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(TARGET).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut target = command.creation_flags(CREATE_NEW_PROCESS_GROUP).spawn()?;
    let Some(mut said) = target.stdout.take() else { return Ok(FAILED) };
    // That it listens.
    said.read_exact(&mut [0])?;
    console::send_break(target.id().cast_signed())?;
    Ok(target.wait()?.code().unwrap_or(FAILED))
}

/// Whether it has come.
static COME: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

fn wait() -> io::Result<i32> {
    // SAFETY: the handler lives as long as the program.
    check(unsafe { SetConsoleCtrlHandler(Some(come), 1) })?;
    io::stdout().write_all(b".").and_then(|()| io::stdout().flush())?;
    let come = COME.lock().unwrap_or_else(PoisonError::into_inner);
    let (come, _) = CHANGED.wait_timeout_while(come, PATIENCE, |come| !*come).unwrap_or_else(PoisonError::into_inner);
    Ok(if *come { HAS_COME } else { FAILED })
}

unsafe extern "system" fn come(event: u32) -> BOOL {
    if event == CTRL_BREAK_EVENT {
        *COME.lock().unwrap_or_else(PoisonError::into_inner) = true;
        CHANGED.notify_all();
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_without_having_heard_ctrl_break_shows_nothing() {
        // This one plays no roles: it runs no test of that name, and ends well.
        assert!(!judge(|| try_out(&std::env::current_exe().unwrap())).unwrap());
        assert!(try_out(Path::new("no-such-program.exe")).is_err());
    }

    #[test]
    fn a_trial_that_took_too_long_shows_nothing_and_is_made_again() {
        let after = |trials: &[Option<i32>]| {
            let mut left = trials.iter().copied();
            let found = judge(|| Ok(left.next().unwrap()));
            (found.map_err(|error| error.kind()), left.len())
        };
        assert_eq!(after(&[None, Some(HAS_COME)]), (Ok(true), 0));
        assert_eq!(after(&[None, Some(FAILED)]), (Ok(false), 0));
        assert_eq!(after(&[Some(FAILED), Some(HAS_COME)]), (Ok(false), 1));
        assert_eq!(after(&[None, None]), (Err(io::ErrorKind::TimedOut), 0));
    }

    #[test]
    fn who_waits_for_ctrl_break_returns_whether_it_has_come() {
        // SAFETY: it is called as the system would.
        assert_eq!(unsafe { come(CTRL_BREAK_EVENT) }, 1);
        assert_eq!(play(TARGET), Some(HAS_COME));
        assert_eq!(play("shim"), None);
    }
}
