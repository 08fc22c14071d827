use super::faults::{Faults, Path};
use crate::api::v1::{Container, Object, PodSpec, object};
use crate::error::Violation;

/// What a new version of an object changes although it never may. Both went through [`default_object`](crate::api::default_object), and
/// [`validate`](super::validate) has no objection to `new`.
pub fn validate_update(old: &Object, new: &Object) -> Vec<Violation> {
    let mut faults = Faults::default();
    let (Some(kind), Some(old_key), Some(new_key)) = (old.kind(), old.key(), new.key()) else { return Vec::new() };
    let path = Path::root(kind.arm_name());
    if old_key != new_key {
        faults.add(&path.field("metadata.name"), format!("can't change: {old_key} can't become {new_key}; create a new object"));
        return faults.into_violations();
    }
    match (&old.kind, &new.kind) {
        (Some(object::Kind::Pod(old)), Some(object::Kind::Pod(new))) => {
            let (old, new) = (old.spec.clone().unwrap_or_default(), new.spec.clone().unwrap_or_default());
            check_pod_spec(&path.field("spec"), &old, &new, &mut faults);
        }
        (Some(object::Kind::Service(old)), Some(object::Kind::Service(new))) => {
            let address = |service: &crate::api::v1::Service| service.spec.as_ref().map_or(String::new(), |spec| spec.cluster_ip.clone());
            let (old, new) = (address(old), address(new));
            if !old.is_empty() && old != new {
                faults.add(&path.field("spec.cluster_ip"), format!("can't change once it is set: it is {old:?}"));
            }
        }
        (Some(object::Kind::Secret(old)), Some(object::Kind::Secret(new))) if old.r#type != new.r#type => {
            faults.add(&path.field("type"), format!("can't change: it is {:?}; delete the secret and create it anew", old.r#type));
        }
        _ => {}
    }
    faults.into_violations()
}

const POD_RULE: &str = "can't change in a pod that exists; delete the pod and create it anew";

fn check_pod_spec(path: &Path<'_>, old: &PodSpec, new: &PodSpec, faults: &mut Faults) {
    for (name, old, new) in
        [("init_containers", &old.init_containers, &new.init_containers), ("containers", &old.containers, &new.containers)]
    {
        if old.len() != new.len() {
            faults.add(&path.field(name), POD_RULE);
            continue;
        }
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            check_container(&path.field(name).index(index), old, new, faults);
        }
    }
    for (field, is_same) in [
        ("restart_policy", old.restart_policy == new.restart_policy),
        ("termination_grace_period_seconds", old.termination_grace_period_seconds == new.termination_grace_period_seconds),
        ("node_selector", old.node_selector == new.node_selector),
        ("volumes", old.volumes == new.volumes),
        ("best_effort_limits", old.best_effort_limits == new.best_effort_limits),
        ("restart_on_config_change", old.restart_on_config_change == new.restart_on_config_change),
    ] {
        if !is_same {
            faults.add(&path.field(field), POD_RULE);
        }
    }
    if !old.node_name.is_empty() && old.node_name != new.node_name {
        faults.add(&path.field("node_name"), format!("can't change once it is set: the pod is bound to {:?}", old.node_name));
    }
}

fn check_container(path: &Path<'_>, old: &Container, new: &Container, faults: &mut Faults) {
    let Container {
        name,
        command,
        args,
        env,
        working_dir,
        ports,
        resources,
        image,
        startup_probe,
        liveness_probe,
        readiness_probe,
        lifecycle,
        restart_policy,
        restart_backoff,
        env_from,
        run_as,
        volume_mounts,
    } = old;
    for (field, is_same) in [
        ("name", *name == new.name),
        ("command", *command == new.command),
        ("args", *args == new.args),
        ("env", *env == new.env),
        ("working_dir", *working_dir == new.working_dir),
        ("ports", *ports == new.ports),
        ("resources", *resources == new.resources),
        ("image", *image == new.image),
        ("startup_probe", *startup_probe == new.startup_probe),
        ("liveness_probe", *liveness_probe == new.liveness_probe),
        ("readiness_probe", *readiness_probe == new.readiness_probe),
        ("lifecycle", *lifecycle == new.lifecycle),
        ("restart_policy", *restart_policy == new.restart_policy),
        ("restart_backoff", *restart_backoff == new.restart_backoff),
        ("env_from", *env_from == new.env_from),
        ("run_as", *run_as == new.run_as),
        ("volume_mounts", *volume_mounts == new.volume_mounts),
    ] {
        if !is_same {
            faults.add(&path.field(field), POD_RULE);
        }
    }
}
