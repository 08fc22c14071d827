//! What a node can do that another might not, and what of that a pod needs. The scheduler and the kubelet ask the same functions, so that they can't
//! disagree.

use std::collections::BTreeSet;

use super::v1::{Container, HostPathType, PodSpec, Volume, env_from_source, env_var_source, stop_method, volume};

/// Runs plain processes.
pub const RUNTIME_PROCESS: &str = "runtime.process";
/// Runs OCI images.
pub const RUNTIME_DOCKER: &str = "runtime.docker";
/// Enforces limits of `cpu`.
pub const CPU_LIMITS: &str = "cpu-limits";
/// Enforces limits of `memory`.
pub const MEMORY_LIMITS: &str = "memory-limits";
/// Enforces limits of `pids`.
pub const PIDS_LIMITS: &str = "pids-limits";
/// Runs containers as another user than the kubelet's.
pub const RUN_AS: &str = "run-as";

/// Asks containers that don't say how to end, by what its system has for that, before it ends them.
pub const STOP_ASK: &str = "stop.ask";
/// Asks containers to end by a signal of their choice.
pub const STOP_SIGNAL: &str = "stop.signal";
/// Asks containers to end by Ctrl-Break.
pub const STOP_CTRL_BREAK: &str = "stop.ctrl-break";
/// Gives processes a view of the file system in which a volume is at any path.
pub const ABSOLUTE_MOUNTS: &str = "mounts.absolute";

/// Mounts volumes that are folders: all but files of the node.
pub const FOLDER_MOUNTS: &str = "mounts.folders";
/// Mounts files of the node.
pub const FILE_MOUNTS: &str = "mounts.files";
/// Keeps what a Secret holds from the machine's other users.
pub const PRIVATE_SECRETS: &str = "secrets.private";
/// Restarts containers when what they use of ConfigMaps and Secrets changes. Older kubelets don't know of it.
pub const RESTART_ON_CONFIG_CHANGE: &str = "restart-on-config-change";

/// What can be limited, with the capability that enforces it.
pub const LIMITS: [(&str, &str); 3] = [("cpu", CPU_LIMITS), ("memory", MEMORY_LIMITS), ("pids", PIDS_LIMITS)];

/// What a container needs its node to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need<'a> {
    /// The container's name.
    pub container: &'a str,
    /// Without it the container can't be run as its spec says.
    pub capability: &'static str,
}

/// Everything that a pod needs its node to be able to do, in the order of its containers.
pub fn needs(spec: &PodSpec) -> impl Iterator<Item = Need<'_>> {
    spec.all_containers().flat_map(|container| {
        let limits = limits(container).filter(|_| !spec.best_effort_limits);
        let run_as = (!container.run_as.is_empty()).then_some(RUN_AS);
        let absolute = container.volume_mounts.iter().any(|mount| is_absolute(&mount.mount_path)).then_some(ABSOLUTE_MOUNTS);
        let all = std::iter::once(runtime(container))
            .chain(limits.map(|(_, capability)| capability))
            .chain(run_as)
            .chain(stop(container))
            .chain(absolute)
            .chain(mounts(spec, container))
            .chain(secrets(spec, container))
            .chain(spec.restart_on_config_change.then_some(RESTART_ON_CONFIG_CHANGE));
        all.map(|capability| Need { container: &container.name, capability })
    })
}

/// The capabilities among [`needs`].
pub fn needed(spec: &PodSpec) -> BTreeSet<&'static str> {
    needs(spec).map(|need| need.capability).collect()
}

/// Why a node with these capabilities can't run a pod, if it can't.
pub fn obstacle(spec: &PodSpec, capabilities: &[String]) -> Option<String> {
    let Need { container, capability } = needs(spec).find(|need| !has(capabilities, need.capability))?;
    Some(format!("container {container} needs the capability {capability}, which this node lacks"))
}

/// The limits that a node with these capabilities doesn't enforce, as `memory of main`: of a pod that runs there all the same.
pub fn unenforced_limits(spec: &PodSpec, capabilities: &[String]) -> Vec<String> {
    let of = |container: &Container, resource: &str| format!("{resource} of {}", container.name);
    let missing = |container| limits(container).filter(|(_, capability)| !has(capabilities, capability));
    spec.all_containers().flat_map(|container| missing(container).map(move |(resource, _)| of(container, resource))).collect()
}

/// Whether a pod limits anything.
pub fn has_limits(spec: &PodSpec) -> bool {
    spec.all_containers().any(|container| limits(container).next().is_some())
}

/// Whether a path is absolute on any operating system: `/data`, `\\host\data`, `C:\data`.
pub fn is_absolute(path: &str) -> bool {
    let drive = path.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && path.as_bytes().get(1) == Some(&b':');
    drive || path.starts_with(['/', '\\'])
}

fn runtime(container: &Container) -> &'static str {
    if container.image.is_empty() { RUNTIME_PROCESS } else { RUNTIME_DOCKER }
}

fn stop(container: &Container) -> Option<&'static str> {
    match container.lifecycle.as_ref()?.stop.as_ref()?.method.as_ref()? {
        stop_method::Method::Signal(_) => Some(STOP_SIGNAL),
        stop_method::Method::CtrlBreak(_) => Some(STOP_CTRL_BREAK),
        stop_method::Method::Command(_) | stop_method::Method::Http(_) => None,
    }
}

/// What mounting the volumes of a container needs.
fn mounts<'a>(spec: &'a PodSpec, container: &'a Container) -> impl Iterator<Item = &'static str> {
    mounted(spec, container).map(|volume| match &volume.source {
        Some(volume::Source::HostPath(host)) if matches!(host.r#type(), HostPathType::File | HostPathType::FileOrCreate) => FILE_MOUNTS,
        _ => FOLDER_MOUNTS,
    })
}

/// What a container needs that is told what a Secret holds, by a volume or a variable.
fn secrets(spec: &PodSpec, container: &Container) -> Option<&'static str> {
    let by_volume = mounted(spec, container).any(|volume| matches!(volume.source, Some(volume::Source::Secret(_))));
    let by_all = container.env_from.iter().any(|from| matches!(from.source, Some(env_from_source::Source::SecretRef(_))));
    let mut sources = container.env.iter().filter_map(|variable| variable.value_from.as_ref()?.source.as_ref());
    let by_one = sources.any(|source| matches!(source, env_var_source::Source::SecretKeyRef(_)));
    (by_volume || by_all || by_one).then_some(PRIVATE_SECRETS)
}

fn mounted<'a>(spec: &'a PodSpec, container: &'a Container) -> impl Iterator<Item = &'a Volume> {
    container.volume_mounts.iter().filter_map(|mount| spec.volumes.iter().find(|volume| volume.name == mount.name))
}

/// What of a container is limited, each with the capability for that.
fn limits(container: &Container) -> impl Iterator<Item = (&'static str, &'static str)> {
    let given = container.resources.as_ref();
    LIMITS.into_iter().filter(move |(resource, _)| given.is_some_and(|given| given.limits.contains_key(*resource)))
}

fn has(capabilities: &[String], needed: &str) -> bool {
    capabilities.iter().any(|capability| capability == needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{HttpGetAction, Lifecycle, ResourceRequirements, StopMethod};

    fn container(name: &str, limits: &[&str]) -> Container {
        let limits = limits.iter().map(|resource| ((*resource).to_owned(), "1".to_owned())).collect();
        let resources = Some(ResourceRequirements { limits, ..Default::default() });
        Container { name: name.into(), resources, ..Default::default() }
    }

    fn check(spec: &PodSpec, capabilities: &[&str], expected: Option<&str>, unenforced: &[&str]) {
        let capabilities: Vec<String> = capabilities.iter().map(|capability| (*capability).to_owned()).collect();
        assert_eq!(obstacle(spec, &capabilities).as_deref(), expected);
        assert_eq!(unenforced_limits(spec, &capabilities), unenforced);
    }

    #[test]
    fn a_node_that_lacks_what_a_container_needs_is_no_place_for_its_pod() {
        let spec = PodSpec {
            init_containers: vec![container("setup", &["pids"])],
            containers: vec![container("main", &["memory", "cpu"])],
            ..Default::default()
        };
        assert_eq!(needed(&spec), BTreeSet::from([CPU_LIMITS, MEMORY_LIMITS, PIDS_LIMITS, RUNTIME_PROCESS]));
        let lacks = |name: &str, capability: &str| format!("container {name} needs the capability {capability}, which this node lacks");
        let all = ["pids of setup", "cpu of main", "memory of main"];
        check(&spec, &[], Some(&lacks("setup", RUNTIME_PROCESS)), &all);
        check(&spec, &[RUNTIME_PROCESS, CPU_LIMITS], Some(&lacks("setup", PIDS_LIMITS)), &["pids of setup", "memory of main"]);
        check(&spec, &[RUNTIME_PROCESS, CPU_LIMITS, PIDS_LIMITS], Some(&lacks("main", MEMORY_LIMITS)), &["memory of main"]);
        check(&spec, &[RUNTIME_PROCESS, CPU_LIMITS, PIDS_LIMITS, MEMORY_LIMITS], None, &[]);
    }

    #[test]
    fn a_mount_at_an_absolute_path_of_any_system_needs_a_node_that_can_do_it() {
        for (path, needs) in [("data", false), ("a/c:", false), ("/data", true), ("C:\\data", true), ("\\\\host\\data", true)] {
            let mount = crate::api::v1::VolumeMount { name: "data".into(), mount_path: path.into() };
            let spec =
                PodSpec { containers: vec![Container { volume_mounts: vec![mount], ..container("main", &[]) }], ..Default::default() };
            assert_eq!(needed(&spec).contains(ABSOLUTE_MOUNTS), needs, "{path}");
        }
    }

    #[test]
    fn a_way_to_end_that_not_every_system_has_needs_a_node_that_has_it() {
        let signal = stop_method::Method::Signal("SIGINT".into());
        for (method, need) in [
            (signal, Some(STOP_SIGNAL)),
            (stop_method::Method::CtrlBreak(true), Some(STOP_CTRL_BREAK)),
            (stop_method::Method::Http(HttpGetAction::default()), None),
        ] {
            let stop = Some(StopMethod { method: Some(method) });
            let asked = Container { lifecycle: Some(Lifecycle { stop, pre_stop: None }), ..container("main", &[]) };
            let needed = needed(&PodSpec { containers: vec![asked], ..Default::default() });
            assert_eq!(needed, BTreeSet::from_iter([RUNTIME_PROCESS].into_iter().chain(need)));
        }
    }

    #[test]
    fn what_is_mounted_and_what_a_secret_tells_need_a_node_that_can_do_it() {
        use crate::api::v1::{EnvFromSource, HostPathVolumeSource, SecretEnvSource, SecretVolumeSource, VolumeMount};
        let host = |r#type: HostPathType| volume::Source::HostPath(HostPathVolumeSource { path: "/a".into(), r#type: r#type.into() });
        let secret = volume::Source::Secret(SecretVolumeSource { secret_name: "s".into(), ..Default::default() });
        let sources = [
            ("any", host(HostPathType::Unspecified)),
            ("file", host(HostPathType::File)),
            ("secret", secret),
            ("unused", host(HostPathType::File)),
        ];
        let volumes = sources.map(|(name, source)| Volume { name: name.into(), source: Some(source) }).to_vec();
        let needs_of = |mounts: &[&str], env_from: Vec<EnvFromSource>| {
            let volume_mounts = mounts.iter().map(|name| VolumeMount { name: (*name).into(), mount_path: (*name).into() }).collect();
            let main = Container { volume_mounts, env_from, ..container("main", &[]) };
            let spec = PodSpec { containers: vec![main], volumes: volumes.clone(), ..Default::default() };
            needed(&spec).into_iter().filter(|need| *need != RUNTIME_PROCESS).collect::<Vec<_>>()
        };
        assert!(needs_of(&[], Vec::new()).is_empty());
        assert_eq!(needs_of(&["any"], Vec::new()), [FOLDER_MOUNTS]);
        assert_eq!(needs_of(&["file"], Vec::new()), [FILE_MOUNTS]);
        assert_eq!(needs_of(&["secret"], Vec::new()), [FOLDER_MOUNTS, PRIVATE_SECRETS]);
        let source = Some(env_from_source::Source::SecretRef(SecretEnvSource { name: "s".into(), ..Default::default() }));
        assert_eq!(needs_of(&[], vec![EnvFromSource { source, ..Default::default() }]), [PRIVATE_SECRETS]);
    }

    #[test]
    fn a_pod_that_is_to_be_restarted_for_changes_is_none_for_a_kubelet_that_does_not_know_of_that() {
        let spec = PodSpec { containers: vec![container("main", &[])], restart_on_config_change: true, ..Default::default() };
        let expected = "container main needs the capability restart-on-config-change, which this node lacks";
        check(&spec, &[RUNTIME_PROCESS], Some(expected), &[]);
        check(&spec, &[RUNTIME_PROCESS, RESTART_ON_CONFIG_CHANGE], None, &[]);
    }

    #[test]
    fn a_pod_that_takes_limits_as_best_effort_needs_none_of_them() {
        let spec = PodSpec { containers: vec![container("main", &["memory"])], best_effort_limits: true, ..Default::default() };
        assert!(has_limits(&spec));
        check(&spec, &[RUNTIME_PROCESS], None, &["memory of main"]);
    }
}
