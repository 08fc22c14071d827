//! What processes and the machine use, as /proc tells it.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::kubelet::os::usage::{MachineUsage, ProcessUsage};

/// In what /proc counts.
#[derive(Clone, Copy, Debug)]
struct Units {
    /// Clock ticks in a second.
    ticks: u64,
    /// Bytes of a page.
    page: u64,
}

/// All living processes, looked at once.
pub(super) fn processes() -> io::Result<Vec<ProcessUsage>> {
    let units = units()?;
    let mut found = Vec::new();
    let mut text = Vec::new();
    for pid in super::pids()? {
        text.clear();
        // It may be gone by now.
        let read = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_end(&mut text));
        if read.is_ok() {
            found.extend(process(pid, &String::from_utf8_lossy(&text), units));
        }
    }
    Ok(found)
}

/// The machine.
pub(super) fn machine() -> io::Result<MachineUsage> {
    let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not as it should be"));
    let cpu = machine_cpu(&std::fs::read_to_string("/proc/stat")?, units()?).ok_or_else(|| odd("/proc/stat"))?;
    let memory = machine_memory(&std::fs::read_to_string("/proc/meminfo")?).ok_or_else(|| odd("/proc/meminfo"))?;
    Ok(MachineUsage { cpu, memory })
}

fn units() -> io::Result<Units> {
    let read = |variable| Ok(u64::try_from(sysconf(variable)?.unwrap_or_default()).unwrap_or_default());
    let units: nix::Result<Units> = (|| Ok(Units { ticks: read(SysconfVar::CLK_TCK)?, page: read(SysconfVar::PAGE_SIZE)? }))();
    Ok(units?)
}

/// `None` for a zombie: it has given back what it had.
fn process(pid: i32, stat: &str, units: Units) -> Option<ProcessUsage> {
    // pid (name) state ppid …, as proc(5) numbers them from 1: the name may contain anything, also parentheses.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place - 3)?.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(ProcessUsage {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        cpu: duration(number(14)? + number(15)?, units),
        cpu_of_ended_children: duration(number(16)? + number(17)?, units),
        memory: number(24)? * units.page,
    })
}

/// All that was not idle: user, nice, system, irq, softirq, steal. Guests are in user already.
fn machine_cpu(stat: &str, units: Units) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|place| ticks.get(*place)).sum();
    (ticks.len() >= 4).then(|| duration(busy, units))
}

fn machine_memory(meminfo: &str) -> Option<u64> {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(kibibytes("MemTotal")?.saturating_sub(kibibytes("MemAvailable")?) * 1024)
}

fn duration(ticks: u64, units: Units) -> Duration {
    Duration::from_secs(1).mul_f64(ticks as f64 / units.ticks.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: Units = Units { ticks: 100, page: 4096 };

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "17 (a) R 1 (b) S 5 17 17 0 -1 4194304 99 0 0 0 250 50 100 300 20 0 1 0 777 10000000 25 18446744073709551615 1 1 0";
        let expected = ProcessUsage {
            pid: 17,
            parent: 5,
            cpu: Duration::from_secs(3),
            cpu_of_ended_children: Duration::from_secs(4),
            memory: 25 * 4096,
        };
        assert_eq!(process(17, stat, UNITS), Some(expected));
        assert_eq!(process(17, &stat.replace(") S 5", ") Z 5"), UNITS), None);
        for cut in 0..stat.len() {
            // Whatever is cut off, it is no panic.
            let _looked = process(17, &stat[..cut], UNITS);
        }
    }

    #[test]
    fn a_machine_is_busy_where_it_is_not_idle() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 1 2 3 4\nintr 5\n";
        assert_eq!(machine_cpu(stat, UNITS), Some(Duration::from_millis(1710)));
        assert_eq!(machine_cpu("cpu  100 20 30 4000\n", UNITS), Some(Duration::from_millis(1500)));
        assert_eq!(machine_cpu("cpu  100\n", UNITS), None);
        assert_eq!(machine_cpu("", UNITS), None);
    }

    #[test]
    fn memory_that_is_available_is_not_in_use() {
        let meminfo = "MemTotal:       24000 kB\nMemFree:         1000 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(machine_memory(meminfo), Some(4000 * 1024));
        assert_eq!(machine_memory("MemTotal: 24000 kB\n"), None);
    }

    #[test]
    fn this_process_is_among_all_and_has_memory() {
        let me = std::process::id() as i32;
        let found = processes().unwrap().into_iter().find(|process| process.pid == me).unwrap();
        assert_eq!(found.parent, std::os::unix::process::parent_id() as i32);
        assert!(found.memory > 1 << 20, "{found:?}");
        assert!(machine().unwrap().memory > found.memory);
    }
}
