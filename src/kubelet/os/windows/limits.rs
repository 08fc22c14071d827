//! What holds the processes of a container within their limits: its job. What the system enforces of that is found by trying, since it may take a limit
//! and forget it.

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, Stdio};

use windows_sys::Win32::System::JobObjects::{
    JOB_OBJECT_CPU_RATE_CONTROL_ENABLE, JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP, JOB_OBJECT_LIMIT_ACTIVE_PROCESS, JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, JOBOBJECT_CPU_RATE_CONTROL_INFORMATION_0,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
};
use windows_sys::Win32::System::Memory::{MEM_COMMIT, MEM_RESERVE, PAGE_READWRITE, VirtualAllocEx};
use windows_sys::Win32::System::Threading::{ALL_PROCESSOR_GROUPS, CREATE_NO_WINDOW, CREATE_SUSPENDED, GetActiveProcessorCount};

use super::job::Job;
use crate::kubelet::os::fence::{Kinds, Limits};

/// All that a job may have of a processor's time, in the unit in which its share is told.
const WHOLE: u64 = 10_000;
/// More than a process has before it has begun, and a trifle for any machine.
const TRIAL_BYTES: usize = 64 << 20;

/// A job's limits but for that of processor time, which has a place of its own.
pub(super) fn of_job(limits: &Limits) -> JOBOBJECT_EXTENDED_LIMIT_INFORMATION {
    let mut told = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    let basic = &mut told.BasicLimitInformation;
    basic.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    if let Some(pids) = limits.pids {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
        basic.ActiveProcessLimit = u32::try_from(pids).unwrap_or(u32::MAX);
    }
    if let Some(bytes) = limits.memory_bytes {
        basic.LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
        told.JobMemoryLimit = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    told
}

/// A limit of processor time as a job is told it: a share of all that the machine has. `None` for as much as there is.
pub(super) fn cpu_rate(millis: u64) -> Option<JOBOBJECT_CPU_RATE_CONTROL_INFORMATION> {
    // SAFETY: no pointers.
    let processors = unsafe { GetActiveProcessorCount(ALL_PROCESSOR_GROUPS) };
    share(millis, u64::from(processors)).map(|share| JOBOBJECT_CPU_RATE_CONTROL_INFORMATION {
        ControlFlags: JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
        Anonymous: JOBOBJECT_CPU_RATE_CONTROL_INFORMATION_0 { CpuRate: share },
    })
}

/// So many thousandths of a processor of so many.
fn share(millis: u64, processors: u64) -> Option<u32> {
    let share = millis.saturating_mul(WHOLE) / (1000 * processors.max(1));
    (share < WHOLE).then(|| share.max(1) as u32)
}

/// What is enforced here.
pub(super) fn enforced() -> Kinds {
    let is_enforced = |kind: &str, tried: io::Result<bool>| match tried {
        Ok(true) => true,
        Ok(false) => {
            tracing::debug!(kind, "this system takes limits of jobs and doesn't enforce them");
            false
        }
        Err(error) => {
            tracing::debug!(kind, %error, "this system takes no limits of jobs");
            false
        }
    };
    Kinds { cpu: is_enforced("cpu", try_cpu()), memory: is_enforced("memory", try_memory()), pids: is_enforced("pids", try_pids()) }
}

/// Whether a job has the rate that it is given. How it is used would take long to find out.
fn try_cpu() -> io::Result<bool> {
    // Of a machine with one processor or many this is less than all.
    let (rate, expected) = (Some(500), cpu_rate(500));
    let job = Job::within(&Limits { cpu_millis: rate, ..Limits::default() })?;
    // SAFETY: all members of the union are numbers.
    Ok(Some(job.cpu_rate()?) == expected.map(|expected| unsafe { expected.Anonymous.CpuRate }))
}

/// Whether a process that may have little memory gets little, and not much.
fn try_memory() -> io::Result<bool> {
    let job = Job::within(&Limits { memory_bytes: Some(TRIAL_BYTES as u64), ..Limits::default() })?;
    let trial = Trial::start()?;
    job.assign(trial.0.as_handle())?;
    Ok(trial.gets(TRIAL_BYTES / 4) && !trial.gets(TRIAL_BYTES))
}

/// Whether a job for one process takes a second.
fn try_pids() -> io::Result<bool> {
    let job = Job::within(&Limits { pids: Some(1), ..Limits::default() })?;
    let (first, second) = (Trial::start()?, Trial::start()?);
    job.assign(first.0.as_handle())?;
    Ok(job.assign(second.0.as_handle()).is_err())
}

/// A process that never begins.
struct Trial(Child);

impl Trial {
    fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.creation_flags(CREATE_SUSPENDED | CREATE_NO_WINDOW).spawn().map(Self)
    }

    /// Whether so much memory can be had for it.
    fn gets(&self, bytes: usize) -> bool {
        let (process, anywhere) = (self.0.as_raw_handle(), std::ptr::null());
        // SAFETY: the memory is another process's, which never runs.
        !unsafe { VirtualAllocEx(process, anywhere, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) }.is_null()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // One that its job has refused is ended already.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_cpu_is_a_share_of_all_processors() {
        let shares = [(500, 1), (500, 4), (1500, 2), (1, 64), (4000, 4), (9000, 4)].map(|(millis, processors)| share(millis, processors));
        assert_eq!(shares, [Some(5000), Some(1250), Some(7500), Some(1), None, None]);
    }

    #[test]
    fn a_job_has_the_limits_that_it_was_made_with() {
        let limits = Limits { memory_bytes: Some(1 << 30), pids: Some(7), ..Limits::default() };
        let told = of_job(&limits);
        assert_eq!((told.JobMemoryLimit, told.BasicLimitInformation.ActiveProcessLimit), (1 << 30, 7));
        let flags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_ACTIVE_PROCESS | JOB_OBJECT_LIMIT_JOB_MEMORY;
        assert_eq!(told.BasicLimitInformation.LimitFlags, flags);
        assert_eq!(of_job(&Limits::default()).BasicLimitInformation.LimitFlags, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE);
        Job::within(&limits).unwrap();
    }
}
