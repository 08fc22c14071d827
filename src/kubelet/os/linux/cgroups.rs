//! Where the control groups of a kubelet's pods can be: below its own group, so that what limits it limits them, or else below the root. Each kind of
//! limit is found by trying.

use std::io;
use std::path::{Path, PathBuf};

use crate::kubelet::os::fence::{Limits, Places, pass_on_controllers, remove_empty, set};

/// One mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mounted_at: PathBuf,
    /// The group that this process is in, as a folder.
    own: PathBuf,
    /// Of version 1; none for version 2, which has its controllers in a file.
    controllers: Vec<String>,
}

/// Tries every hierarchy for a kubelet with this root folder.
pub(super) fn places(root: &Path) -> Places {
    let read = || -> io::Result<Vec<Hierarchy>> {
        Ok(hierarchies(&std::fs::read_to_string("/proc/self/mountinfo")?, &std::fs::read_to_string("/proc/self/cgroup")?))
    };
    let all = match read() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "control groups can't be looked for: this node enforces no limits");
            return Places::default();
        }
    };
    let mark = format!("bluebird/{:016x}", fnv1a(root.as_os_str().as_encoded_bytes()));
    let find = |limits: Limits, controller: Option<&str>| all.iter().find_map(|hierarchy| hierarchy.place(&mark, &limits, controller));
    let amount = Some(1 << 30);
    Places {
        cpu: find(Limits { cpu_millis: Some(1000), cpu_request_millis: Some(1000), ..Limits::default() }, Some("cpu")),
        memory: find(Limits { memory_bytes: amount, ..Limits::default() }, Some("memory")),
        pids: find(Limits { pids: Some(1000), ..Limits::default() }, Some("pids")),
        kill: find(Limits::default(), None),
        ..Places::default()
    }
}

/// What must be in a group that enforces such a limit: by version 1, or by version 2.
fn signs(controller: Option<&str>) -> &'static [&'static str] {
    match controller {
        Some("cpu") => &["cpu.cfs_quota_us", "cpu.max"],
        Some("memory") => &["memory.limit_in_bytes", "memory.max"],
        Some(_) => &["pids.max"],
        None => &["cgroup.kill"],
    }
}

impl Hierarchy {
    /// A folder in it below which groups with such limits can be made.
    fn place(&self, mark: &str, limits: &Limits, controller: Option<&str>) -> Option<PathBuf> {
        if !self.controllers.is_empty() && !controller.is_some_and(|name| self.controllers.iter().any(|known| known == name)) {
            return None;
        }
        let mut parents = vec![&self.own];
        if self.own != self.mounted_at {
            parents.push(&self.mounted_at);
        }
        parents.into_iter().find_map(|parent| {
            let place = parent.join(mark);
            let result = try_out(parent, &place, limits, signs(controller));
            remove_empty(&place);
            match result {
                Ok(is_enforced) => is_enforced.then_some(place),
                Err(error) => {
                    tracing::debug!(%error, parent = %parent.display(), "no control groups here");
                    None
                }
            }
        })
    }
}

/// Makes a group and sets limits for it; false when it has no file for them.
fn try_out(parent: &Path, place: &Path, limits: &Limits, signs: &[&str]) -> io::Result<bool> {
    std::fs::create_dir_all(place)?;
    for above in place.ancestors().take_while(|above| *above != parent).chain([parent]).collect::<Vec<_>>().into_iter().rev() {
        pass_on_controllers(above)?;
    }
    let trial = place.join(format!("trial-{}", std::process::id()));
    std::fs::create_dir(&trial)?;
    let is_enforced = signs.iter().any(|file| trial.join(file).exists());
    let result = set(&trial, limits);
    std::fs::remove_dir(&trial)?;
    result.map(|()| is_enforced)
}

/// The hierarchies of control groups that a process sees, by its mounts and its own groups.
fn hierarchies(mounts: &str, groups: &str) -> Vec<Hierarchy> {
    let hierarchy = |mount: &str| {
        // id parent device root place options … - type source superoptions
        let (place, kind) = mount.split_once(" - ")?;
        let place: Vec<&str> = place.split(' ').collect();
        let kind: Vec<&str> = kind.split(' ').collect();
        let (root, mounted_at) = (place.get(3)?, place.get(4)?);
        let controllers: Vec<String> = match *kind.first()? {
            "cgroup2" => Vec::new(),
            "cgroup" => kind.get(2)?.split(',').filter(|option| !["rw", "ro"].contains(option)).map(str::to_owned).collect(),
            _ => return None,
        };
        // number:controllers:group
        let mut own = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        let is_this = |names: &str| match controllers.first() {
            Some(first) => names.split(',').any(|name| name == first),
            None => names.is_empty(),
        };
        let (_, group) = own.find(|(names, _)| is_this(names))?;
        let below = Path::new(group).strip_prefix(root).ok();
        let mounted_at = PathBuf::from(mounted_at);
        let own = below.map(|below| mounted_at.join(below)).filter(|own| own.is_dir()).unwrap_or_else(|| mounted_at.clone());
        Some(Hierarchy { mounted_at, own, controllers })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

/// FNV-1a: the same in every version of the kubelet.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_by_their_mounts() {
        let mounts = "32 31 0:29 / /cg/cpu rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/x /cg/memory ro - cgroup none ro,memory\n\
                      41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n\
                      42 31 0:39 / /proc rw - proc proc rw\n";
        let groups = "9:memory:/docker/x/y\n1:cpu,cpuacct:/\n0::/init\n";
        let found: Vec<_> = hierarchies(mounts, groups).into_iter().map(|found| (found.mounted_at, found.controllers.join(","))).collect();
        let expected = [("/cg/cpu", "cpu,cpuacct"), ("/cg/memory", "memory"), ("/cg/unified", "")];
        assert_eq!(found, expected.map(|(place, controllers)| (PathBuf::from(place), controllers.to_owned())));
    }

    #[test]
    fn the_hash_of_a_root_folder_never_changes() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
