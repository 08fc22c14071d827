//! What processes and the machine use, as the kernel tells it.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::time::Duration;

use nix::libc;
use nix::unistd::{SysconfVar, sysconf};

use crate::kubelet::os::usage::{MachineUsage, ProcessUsage};

/// `None` for a process that is gone, or of which this one may know nothing.
pub(super) fn process(pid: i32) -> Option<ProcessUsage> {
    let super::Process { parent, .. } = super::process(pid)?;
    let mut usage = MaybeUninit::<libc::rusage_info_v2>::zeroed();
    // SAFETY: the buffer is of the kind that belongs to the flavor.
    if unsafe { libc::proc_pid_rusage(pid, libc::RUSAGE_INFO_V2, usage.as_mut_ptr().cast()) } != 0 {
        return None;
    }
    // SAFETY: filled, and all zeroes before is a valid value of this plain structure.
    let usage = unsafe { usage.assume_init() };
    Some(ProcessUsage {
        pid,
        parent,
        cpu: duration(usage.ri_user_time + usage.ri_system_time),
        cpu_of_ended_children: duration(usage.ri_child_user_time + usage.ri_child_system_time),
        memory: usage.ri_phys_footprint,
    })
}

/// The machine, which has so much memory.
pub(super) fn machine(memory_bytes: u64) -> io::Result<MachineUsage> {
    let cpu: libc::host_cpu_load_info = statistics(libc::HOST_CPU_LOAD_INFO)?;
    let ticks = |state: libc::c_int| u64::from(cpu.cpu_ticks[state as usize]);
    let busy = ticks(libc::CPU_STATE_USER) + ticks(libc::CPU_STATE_SYSTEM) + ticks(libc::CPU_STATE_NICE);
    let ticks = u64::try_from(sysconf(SysconfVar::CLK_TCK)?.unwrap_or_default()).unwrap_or_default();
    let memory: libc::vm_statistics64 = statistics(libc::HOST_VM_INFO64)?;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or_default()).unwrap_or_default();
    // What is free, and what only repeats files.
    let available = (u64::from(memory.free_count) + u64::from(memory.external_page_count)) * page;
    Ok(MachineUsage {
        cpu: Duration::from_secs(1).mul_f64(busy as f64 / ticks.max(1) as f64),
        memory: memory_bytes.saturating_sub(available),
    })
}

fn statistics<T>(flavor: libc::c_int) -> io::Result<T> {
    let mut statistics = MaybeUninit::<T>::zeroed();
    let mut count = (size_of::<T>() / size_of::<libc::integer_t>()) as libc::mach_msg_type_number_t;
    // SAFETY: the buffer is as large as is said, and of the kind that belongs to the flavor.
    #[allow(deprecated, reason = "it is one call; the crate that should be used instead has all of them")]
    let result = unsafe { libc::host_statistics64(libc::mach_host_self(), flavor, statistics.as_mut_ptr().cast(), &raw mut count) };
    match result {
        // SAFETY: filled as far as the kernel knows it; all zeroes is a valid value of these plain structures.
        0 => Ok(unsafe { statistics.assume_init() }),
        code => Err(io::Error::other(format!("the kernel doesn't tell what is used: code {code}"))),
    }
}

/// From the kernel's own units.
#[allow(deprecated, reason = "it is one call; the crate that should be used instead has all of them")]
fn duration(units: u64) -> Duration {
    let mut base = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: the pointer is to a value of the right kind. It can't fail for that.
    unsafe { libc::mach_timebase_info(&raw mut base) };
    let nanos = u128::from(units) * u128::from(base.numer) / u128::from(base.denom.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
