use std::collections::BTreeMap;

use super::faults::{Faults, Path};
use super::names;
use crate::api::capability::is_absolute;
use crate::api::v1::{Container, HostPathType, HostPathVolumeSource, KeyToPath, PodSpec, Volume, volume};

/// The most volumes of a pod.
const MAX_VOLUMES: usize = 100;
/// The most mounts of a container.
const MAX_MOUNTS: usize = 100;
/// What may stand in no name of a file on some operating system.
const UNPORTABLE: [char; 8] = ['\\', ':', '*', '?', '"', '<', '>', '|'];

/// The volumes of a pod.
pub(super) fn check(path: &Path<'_>, spec: &PodSpec, faults: &mut Faults) {
    let volumes = path.field("volumes");
    if spec.volumes.len() > MAX_VOLUMES {
        faults.add(&volumes, format!("are {}; at most {MAX_VOLUMES} are allowed", spec.volumes.len()));
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = volumes.index(index);
        faults.check(&path.field("name"), &volume.name, names::dns_label);
        check_source(&path, volume, faults);
    }
    faults.check_distinct(&volumes, "name", spec.volumes.iter().map(|volume| Some(&volume.name)));
    Places::default().check(path, spec, faults);
}

fn check_source(path: &Path<'_>, volume: &Volume, faults: &mut Faults) {
    use volume::Source;
    match &volume.source {
        None => faults.add(path, "must say what it is: empty_dir, host_path, config_map or secret"),
        Some(Source::EmptyDir(_)) => {}
        Some(Source::HostPath(host)) => check_host_path(&path.field("host_path"), host, faults),
        Some(Source::ConfigMap(map)) => {
            let path = path.field("config_map");
            faults.check(&path.field("name"), &map.name, names::dns_subdomain);
            check_items(&path.field("items"), &map.items, faults);
        }
        Some(Source::Secret(secret)) => {
            let path = path.field("secret");
            faults.check(&path.field("secret_name"), &secret.secret_name, names::dns_subdomain);
            check_items(&path.field("items"), &secret.items, faults);
        }
    }
}

fn check_host_path(path: &Path<'_>, host: &HostPathVolumeSource, faults: &mut Faults) {
    let given = &host.path;
    if !is_absolute(given) || given.contains('\0') || given.split(['/', '\\']).any(|part| part == "..") {
        faults.add(&path.field("path"), format!("{given:?} is not an absolute path without \"..\""));
    }
    if HostPathType::try_from(host.r#type).is_err() {
        faults.add(&path.field("type"), "must be DirectoryOrCreate, Directory, FileOrCreate or File, or be left out");
    }
}

fn check_items(path: &Path<'_>, items: &[KeyToPath], faults: &mut Faults) {
    let mut places = Places::default();
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        faults.check(&path.field("key"), &item.key, names::data_key);
        let path = path.field("path");
        if let Err(expected) = relative(&item.path) {
            faults.add(&path, format!("{:?} is not {expected}", item.path));
        } else if item.path.split('/').any(|part| part.starts_with("..")) {
            faults.add(&path, format!("{:?} has a part that begins with \"..\"", item.path));
        } else if let Err(taken) = places.take(&item.path, &item.key) {
            faults.add(&path, taken);
        }
    }
}

/// The files of a Secret are one user's, who can change them: nobody else is to rely on them, the kubelet's own user neither.
fn check_reader(path: &Path<'_>, volume: &Volume, container: &Container, spec: &PodSpec, faults: &mut Faults) {
    let mounts = |other: &&Container| other.volume_mounts.iter().any(|mount| mount.name == volume.name);
    if let (Some(volume::Source::Secret(_)), Some(first)) = (&volume.source, spec.all_containers().find(mounts))
        && first.run_as != container.run_as
    {
        let how = if first.run_as.is_empty() { "without run_as".to_owned() } else { format!("with run_as {:?}", first.run_as) };
        let name = &first.name;
        faults.add(path, format!("is a Secret, whose files are one user's: {name:?} mounts it {how}; make a volume for each user"));
    }
}

/// What is at which path, so that nothing is at the same path as something else, or within it. Some systems take capitals for small letters.
#[derive(Default)]
struct Places<'a>(BTreeMap<String, &'a str>);

impl<'a> Places<'a> {
    /// Every mount of every container: relative paths are the same for all of a pod.
    fn check(mut self, path: &Path<'_>, spec: &'a PodSpec, faults: &mut Faults) {
        for (list, containers) in [("init_containers", &spec.init_containers), ("containers", &spec.containers)] {
            let path = path.field(list);
            for (index, container) in containers.iter().enumerate() {
                self.check_mounts(&path.index(index).field("volume_mounts"), container, spec, faults);
            }
        }
    }

    fn check_mounts(&mut self, path: &Path<'_>, container: &'a Container, spec: &PodSpec, faults: &mut Faults) {
        if container.volume_mounts.len() > MAX_MOUNTS {
            faults.add(path, format!("are {}; at most {MAX_MOUNTS} are allowed", container.volume_mounts.len()));
        }
        let mut own = std::collections::BTreeSet::new();
        for (index, mount) in container.volume_mounts.iter().enumerate() {
            let path = path.index(index);
            match spec.volumes.iter().find(|volume| volume.name == mount.name) {
                None => faults.add(&path.field("name"), format!("the pod has no volume {:?}", mount.name)),
                Some(volume) => check_reader(&path.field("name"), volume, container, spec, faults),
            }
            let (path, place) = (path.field("mount_path"), &mount.mount_path);
            let is_absolute = is_absolute(place);
            if is_absolute && (place.contains('\0') || place.split(['/', '\\']).any(|part| part == "..")) {
                faults.add(&path, format!("{place:?} must have neither \"..\" nor the character NUL"));
            } else if let Err(expected) = relative(place)
                && !is_absolute
            {
                faults.add(&path, format!("{place:?} is not {expected}"));
            } else if !own.insert(place.to_lowercase()) {
                faults.add(&path, format!("{place:?} stands here already; one thing can be mounted at a path"));
            } else if !is_absolute && let Err(taken) = self.take(place, &mount.name) {
                faults.add(&path, taken);
            }
        }
    }

    fn take(&mut self, place: &str, by: &'a str) -> Result<(), String> {
        let folded = place.to_lowercase();
        let is_within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        let clash = self.0.iter().find(|(taken, owner)| match **taken == folded {
            true => **owner != by,
            false => is_within(&folded, taken) || is_within(taken, &folded),
        });
        if let Some((taken, owner)) = clash {
            return Err(format!("{place:?} clashes with {taken:?}, where {owner:?} is"));
        }
        self.0.insert(folded, by);
        Ok(())
    }
}

/// A path that means the same everywhere.
fn relative(path: &str) -> Result<(), &'static str> {
    let is_part = |part: &str| {
        let is_name = !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
        is_name && !part.ends_with(['.', ' ']) && !part.contains(UNPORTABLE) && !part.contains(char::is_control)
    };
    match path.len() <= 1024 && path.split('/').all(is_part) {
        true => Ok(()),
        false => Err("a relative path: names of files with '/' between them, without \".\", \"..\" and any of \\ : * ? \" < > |"),
    }
}
