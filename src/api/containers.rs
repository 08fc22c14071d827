//! The containers of a pod as its spec means them: in which order they start, what each is for, when it is started again.

use super::v1::{Container, PodSpec, RestartPolicy};

/// What a container is for in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs to success before those after it start.
    Init,
    /// It starts before those after it, runs beside them, and is ended after them.
    Sidecar,
    /// What the pod is there for.
    Main,
}

impl PodSpec {
    /// All containers, in the order in which they start.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// As [`PodSpec::all_containers`].
    pub fn all_containers_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        self.init_containers.iter_mut().chain(&mut self.containers)
    }

    /// All containers, in the order in which they start, with what each is for.
    pub fn roles(&self) -> impl Iterator<Item = (&Container, Role)> {
        let init = self.init_containers.iter().map(|container| match container.restart_policy() {
            RestartPolicy::Always => (container, Role::Sidecar),
            _ => (container, Role::Init),
        });
        init.chain(self.containers.iter().map(|container| (container, Role::Main)))
    }

    /// When one of its containers is started again: as the container says, else as the pod says.
    pub fn restart_policy_of(&self, container: &Container, role: Role) -> RestartPolicy {
        match (container.restart_policy(), role, self.restart_policy()) {
            (RestartPolicy::Unspecified, Role::Main, RestartPolicy::Unspecified) => RestartPolicy::Always,
            (RestartPolicy::Unspecified, Role::Main, policy) => policy,
            // What has ended well is done, whatever the pod says.
            (RestartPolicy::Unspecified, _, RestartPolicy::Never) => RestartPolicy::Never,
            (RestartPolicy::Unspecified, _, _) => RestartPolicy::OnFailure,
            (policy, _, _) => policy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, policy: RestartPolicy) -> Container {
        Container { name: name.into(), restart_policy: policy.into(), ..Default::default() }
    }

    #[test]
    fn a_container_without_a_policy_has_the_one_that_fits_its_role() {
        let check = |pod: RestartPolicy, own: RestartPolicy, role: Role, expected: RestartPolicy| {
            let spec = PodSpec { restart_policy: pod.into(), ..Default::default() };
            assert_eq!(spec.restart_policy_of(&container("a", own), role), expected, "{pod:?} {own:?} {role:?}");
        };
        use RestartPolicy::{Always, Never, OnFailure, Unspecified};
        check(Unspecified, Unspecified, Role::Main, Always);
        check(Never, Unspecified, Role::Main, Never);
        check(Never, Always, Role::Main, Always);
        check(Always, Unspecified, Role::Init, OnFailure);
        check(Never, Unspecified, Role::Init, Never);
        check(Always, Never, Role::Init, Never);
        check(Never, Always, Role::Sidecar, Always);
    }

    #[test]
    fn an_init_container_that_always_restarts_is_a_sidecar() {
        let init_containers = vec![container("setup", RestartPolicy::Unspecified), container("proxy", RestartPolicy::Always)];
        let spec = PodSpec { init_containers, containers: vec![container("main", RestartPolicy::Always)], ..Default::default() };
        let roles: Vec<_> = spec.roles().map(|(container, role)| (container.name.as_str(), role)).collect();
        assert_eq!(roles, [("setup", Role::Init), ("proxy", Role::Sidecar), ("main", Role::Main)]);
    }
}
