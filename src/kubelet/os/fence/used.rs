//! What is used within a fence, as control groups of both versions count it.

use std::path::Path;
use std::time::Duration;

/// What the processes in a fence have used and use; `None` for what it doesn't count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Time on processors since the fence was raised.
    pub(crate) cpu: Option<Duration>,
    /// Bytes of memory, without what can be freed at once.
    pub(crate) memory: Option<u64>,
}

impl Used {
    /// As one folder counts it.
    pub(super) fn within(folder: &Path) -> Self {
        Self::read(|file| std::fs::read_to_string(folder.join(file)).ok())
    }

    /// What is known already, and of another folder what isn't.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self.cpu.is_some() && self.memory.is_some() {
            return self;
        }
        let other = other();
        Self { cpu: self.cpu.or(other.cpu), memory: self.memory.or(other.memory) }
    }

    fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        // Of version 2 first: a microsecond is its unit, a nanosecond that of version 1, whose cpu.stat tells other things.
        let cpu = || Some(Duration::from_micros(line(&read("cpu.stat")?, "usage_usec")?));
        let cpu_of_1 = || Some(Duration::from_nanos(read("cpuacct.usage")?.trim().parse().ok()?));
        let memory = |all: &str, files: &str| {
            let all: u64 = read(all)?.trim().parse().ok()?;
            Some(all.saturating_sub(line(&read("memory.stat")?, files)?))
        };
        Self {
            cpu: cpu().or_else(cpu_of_1),
            memory: memory("memory.current", "inactive_file").or_else(|| memory("memory.usage_in_bytes", "total_inactive_file")),
        }
    }
}

/// The number after a name.
fn line(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], cpu_millis: Option<u64>, memory: Option<u64>) {
        let read = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned());
        assert_eq!(Used::read(read), Used { cpu: cpu_millis.map(Duration::from_millis), memory });
    }

    #[test]
    fn groups_of_version_2_count_without_files_that_nobody_uses() {
        let stat = "anon 5000\ninactive_anon 9\nfile 4000\ninactive_file 3000\n";
        let cpu = "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n";
        check(&[("cpu.stat", cpu), ("memory.current", "9000\n"), ("memory.stat", stat)], Some(1500), Some(6000));
    }

    #[test]
    fn groups_of_version_1_count_what_is_below_them_too() {
        let stat = "cache 1\ninactive_file 7\ntotal_inactive_file 2000\n";
        check(&[("memory.usage_in_bytes", "9000\n"), ("memory.stat", stat)], None, Some(7000));
        check(&[("cpuacct.usage", "2500000000\n"), ("cpu.stat", "nr_periods 0\n")], Some(2500), None);
    }

    #[test]
    fn what_is_not_counted_is_absent_and_no_zero() {
        check(&[], None, None);
        check(&[("cpu.stat", "nr_periods 5\n"), ("memory.current", "max\n")], None, None);
        check(&[("memory.current", "9000\n"), ("memory.stat", "anon 5\n")], None, None);
        check(&[("memory.current", "10\n"), ("memory.stat", "inactive_file 20\n")], None, Some(0));
    }
}
