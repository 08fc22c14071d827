//! What a container is told: its environment, its command, and where it starts.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::configuration::{self, Configuration, Lacking};
use super::os::{Host, Os};
use super::shim::{CONTAINER_VARIABLE, POD_VARIABLE, ROOT_VARIABLE};
use super::uid::PodUid;
use crate::api;
use crate::api::v1::{AssignedPort, Container, Service};

/// An environment in the order in which it was put together; later entries win.
pub(crate) type Environment = Vec<(String, String)>;

/// What every container gets of the kubelet's own environment. PATH begins with the folder of the kubelet's executable.
pub(crate) fn base(variable: impl Fn(&str) -> Option<String>, executable: Option<&Path>) -> Environment {
    let path = variable("PATH").unwrap_or_else(|| Host::DEFAULT_PATH.to_owned());
    let path = match executable.and_then(Path::parent) {
        Some(folder) => format!("{}{}{path}", folder.display(), Host::PATH_SEPARATOR),
        None => path,
    };
    let inherited = Host::INHERITED_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?)));
    std::iter::once(("PATH".to_owned(), path)).chain(inherited).collect()
}

/// The same for a container that runs as somebody else: USER and HOME are that user's. What has no account has neither.
pub(crate) fn as_user<'a>(base: &'a Environment, run_as: &str) -> Cow<'a, Environment> {
    if run_as.is_empty() {
        return Cow::Borrowed(base);
    }
    let mut base = base.clone();
    base.retain(|(name, _)| name != "USER" && name != "HOME");
    // A user that is not there is told at the start.
    if let Ok(Some(known)) = Host::known(run_as) {
        set(&mut base, "USER".to_owned(), known.name);
        set(&mut base, "HOME".to_owned(), known.home.to_string_lossy().into_owned());
    }
    Cow::Owned(base)
}

/// What a container's environment is made of, besides its own variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) base: &'a Environment,
    pub(crate) root: &'a Path,
    pub(crate) uid: &'a PodUid,
    /// All ports of the pod.
    pub(crate) ports: &'a [AssignedPort],
    /// Where the volumes are that the container mounts, by the names of variables.
    pub(crate) volumes: &'a [(String, PathBuf)],
    /// The pod's namespace.
    pub(crate) namespace: &'a str,
    /// What the pod uses of that.
    pub(crate) configuration: &'a Configuration,
}

/// The whole environment of a container: base, services, ports, its own variables, marks; each name once.
///
/// # Errors
/// What of the configuration is needed and can't be had.
pub(crate) fn environment<'a>(
    container: &Container,
    services: impl IntoIterator<Item = &'a Service>,
    surroundings: &Surroundings<'_>,
) -> Result<Environment, Lacking> {
    let mut all = surroundings.base.clone();
    for service in services {
        add_service(&mut all, service);
    }
    let (own, others): (Vec<_>, Vec<_>) = surroundings.ports.iter().partition(|port| port.container == container.name);
    for port in others.iter().chain(&own).filter(|port| !port.name.is_empty()) {
        set(&mut all, format!("PORT_{}", upper(&port.name)), port.port.to_string());
    }
    if let Some(first) = own.first() {
        set(&mut all, "PORT".to_owned(), first.port.to_string());
    }
    for (name, path) in surroundings.volumes {
        set(&mut all, name.clone(), path.to_string_lossy().into_owned());
    }
    for from in &container.env_from {
        for (name, value) in configuration::variables(from, surroundings.namespace, surroundings.configuration)? {
            set(&mut all, name, value);
        }
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => Some(api::expand(&variable.value, |name| get(&all, name))),
            Some(source) => configuration::value_of(source, surroundings.namespace, surroundings.configuration)?,
        };
        if let Some(value) = value {
            set(&mut all, variable.name.clone(), value);
        }
    }
    // What finds the processes of a pod can't be overruled.
    set(&mut all, ROOT_VARIABLE.to_owned(), surroundings.root.to_string_lossy().into_owned());
    set(&mut all, POD_VARIABLE.to_owned(), surroundings.uid.to_string());
    set(&mut all, CONTAINER_VARIABLE.to_owned(), container.name.clone());
    Ok(all)
}

/// The program and its arguments, with variables replaced.
pub(crate) fn command(container: &Container, environment: &Environment) -> Vec<String> {
    let words = container.command.iter().chain(&container.args);
    words.map(|word| api::expand(word, |name| get(environment, name))).collect()
}

/// The program as its container's spec has it.
pub(crate) fn program(container: &Container) -> Option<&String> {
    container.command.iter().chain(&container.args).next()
}

fn add_service(all: &mut Environment, service: &Service) {
    let Some(spec) = service.spec.as_ref().filter(|spec| !spec.cluster_ip.is_empty()) else { return };
    let name = upper(service.metadata.as_ref().map_or("", |meta| &meta.name));
    set(all, format!("{name}_SERVICE_HOST"), spec.cluster_ip.clone());
    if let Some(first) = spec.ports.first() {
        set(all, format!("{name}_SERVICE_PORT"), first.port.to_string());
    }
    for port in spec.ports.iter().filter(|port| !port.name.is_empty()) {
        set(all, format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
    }
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}

fn get<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn set(environment: &mut Environment, name: String, value: String) {
    match environment.iter_mut().find(|(known, _)| *known == name) {
        Some(entry) => entry.1 = value,
        None => environment.push((name, value)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::Resource as _;
    use crate::api::v1::{
        ConfigMap, ConfigMapEnvSource, ConfigMapKeySelector, EnvFromSource, EnvVar, EnvVarSource, ObjectMeta, Protocol, Secret,
        SecretKeySelector, ServicePort, ServiceSpec, env_from_source, env_var_source,
    };

    fn port(container: &str, name: &str, port: u32) -> AssignedPort {
        AssignedPort { container: container.into(), name: name.into(), port, protocol: Protocol::Tcp.into() }
    }

    fn variable(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), value: value.into(), ..Default::default() }
    }

    fn check(container: &Container, services: &[Service], expected: &[(&str, &str)]) {
        let uid = PodUid::new("u1").unwrap();
        let base = vec![("PATH".to_owned(), "/bin".to_owned())];
        let ports = [port("main", "http", 20001), port("main", "admin-2", 20002), port("side", "http-s", 20003)];
        let configuration = configuration();
        let surroundings = Surroundings {
            base: &base,
            root: Path::new("/r"),
            uid: &uid,
            ports: &ports,
            namespace: "",
            volumes: &[],
            configuration: &configuration,
        };
        let all = environment(container, services, &surroundings).unwrap();
        for (name, value) in expected {
            assert_eq!(get(&all, name), Some(*value), "{name} in {all:?}");
        }
        let mut names: Vec<_> = all.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "a name twice in {all:?}");
    }

    #[test]
    fn a_container_learns_its_ports_and_those_of_its_neighbours() {
        let main = Container { name: "main".into(), ..Default::default() };
        check(&main, &[], &[("PORT", "20001"), ("PORT_HTTP", "20001"), ("PORT_ADMIN_2", "20002"), ("PORT_HTTP_S", "20003")]);
        let side = Container { name: "side".into(), ..Default::default() };
        check(&side, &[], &[("PORT", "20003")]);
    }

    #[test]
    fn a_container_learns_the_services_that_have_an_address() {
        let ports =
            vec![ServicePort { name: "web".into(), port: 80, ..Default::default() }, ServicePort { port: 81, ..Default::default() }];
        let spec = ServiceSpec { cluster_ip: "127.96.0.9".into(), ports, ..Default::default() };
        let metadata = Some(ObjectMeta { name: "my-shop".into(), ..Default::default() });
        let service = Service { metadata, spec: Some(spec), ..Default::default() };
        let expected = [("MY_SHOP_SERVICE_HOST", "127.96.0.9"), ("MY_SHOP_SERVICE_PORT", "80"), ("MY_SHOP_SERVICE_PORT_WEB", "80")];
        check(&Container { name: "main".into(), ..Default::default() }, &[service], &expected);
    }

    #[test]
    fn variables_see_earlier_ones_and_marks_cannot_be_overruled() {
        let env = vec![variable("A", "$(PORT)"), variable("B", "$(A)/$(LATER)"), variable("LATER", "x"), variable(POD_VARIABLE, "forged")];
        let main = Container { name: "main".into(), env, ..Default::default() };
        check(&main, &[], &[("A", "20001"), ("B", "20001/$(LATER)"), (POD_VARIABLE, "u1"), (ROOT_VARIABLE, "/r"), ("PATH", "/bin")]);
    }

    /// A ConfigMap "web" and a Secret "db".
    fn configuration() -> Configuration {
        let mut configuration = Configuration::default();
        let data = [("colour", "blue"), ("PORT", "1"), ("word", "$(PORT)")].map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let map = ConfigMap { data, binary_data: [("logo".to_owned(), b"x".to_vec())].into(), ..Default::default() };
        configuration.learn(&configuration::config_map("", "web"), Some(Arc::new(map.into_object())));
        let data =
            [("password", &b"hunter2"[..]), ("key", &[0xff]), ("nul", b"\0")].map(|(key, value)| (key.to_owned(), value.to_vec())).into();
        configuration.learn(&configuration::secret("", "db"), Some(Arc::new(Secret { data, ..Default::default() }.into_object())));
        configuration.learn(&configuration::secret("", "gone"), None);
        configuration
    }

    fn from_map(variable: &str, key: &str) -> EnvVar {
        let selector = ConfigMapKeySelector { name: "web".into(), key: key.into(), optional: false };
        let source = Some(env_var_source::Source::ConfigMapKeyRef(selector));
        EnvVar { name: variable.into(), value_from: Some(EnvVarSource { source }), ..Default::default() }
    }

    fn from_secret(variable: &str, name: &str, key: &str, optional: bool) -> EnvVar {
        let selector = SecretKeySelector { name: name.into(), key: key.into(), optional };
        let source = Some(env_var_source::Source::SecretKeyRef(selector));
        EnvVar { name: variable.into(), value_from: Some(EnvVarSource { source }), ..Default::default() }
    }

    #[test]
    fn variables_come_from_config_maps_and_secrets_and_a_containers_own_win() {
        let map = env_from_source::Source::ConfigMapRef(ConfigMapEnvSource { name: "web".into(), optional: false });
        let env_from = ["", "B_"].map(|prefix| EnvFromSource { prefix: prefix.into(), source: Some(map.clone()) }).to_vec();
        let env = vec![
            from_secret("PASSWORD", "db", "password", false),
            variable("URL", "db:$(PASSWORD)@$(colour)"),
            from_map("word", "word"),
            from_secret("ABSENT", "gone", "x", true),
            variable("B_PORT", "own"),
        ];
        let main = Container { name: "main".into(), env, env_from, ..Default::default() };
        let expected =
            [("URL", "db:hunter2@blue"), ("PORT", "1"), ("B_colour", "blue"), ("B_PORT", "own"), ("word", "$(PORT)"), (POD_VARIABLE, "u1")];
        check(&main, &[], &expected);
    }

    #[test]
    fn what_a_variable_lacks_is_told_without_what_is_secret() {
        let lacking = |env: EnvVar| {
            let (uid, base, configuration) = (PodUid::new("u1").unwrap(), Vec::new(), configuration());
            let surroundings = Surroundings {
                base: &base,
                root: Path::new("/r"),
                uid: &uid,
                ports: &[],
                namespace: "",
                volumes: &[],
                configuration: &configuration,
            };
            environment(&Container { env: vec![env], ..Default::default() }, [], &surroundings).unwrap_err()
        };
        let missing = |text: &str| Lacking::Missing(text.to_owned());
        assert_eq!(lacking(from_map("A", "no")), missing("the ConfigMap \"web\" has no key \"no\""));
        assert_eq!(lacking(from_secret("A", "gone", "x", false)), missing("there is no Secret \"gone\" in the namespace \"default\""));
        assert_eq!(lacking(from_secret("A", "new", "x", true)), Lacking::Unknown);
        for key in ["key", "nul"] {
            let text = format!("the key {key:?} of the Secret \"db\" is no text without the character NUL, which a variable has to be");
            assert_eq!(lacking(from_secret("A", "db", key, true)), missing(&text));
        }
        // It stands in `binaryData`.
        let text = "the key \"logo\" of the ConfigMap \"web\" is no text without the character NUL, which a variable has to be";
        assert_eq!(lacking(from_map("A", "logo")), missing(text));
    }

    #[test]
    fn arguments_are_expanded_by_the_environment() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let container = Container { command: words(&["echo"]), args: words(&["$(PORT)", "$$(PORT)", "$(NONE)"]), ..Default::default() };
        let environment = vec![("PORT".to_owned(), "7".to_owned())];
        assert_eq!(command(&container, &environment), ["echo", "7", "$(PORT)", "$(NONE)"]);
    }

    #[test]
    fn the_path_begins_with_the_folder_of_the_executable() {
        let base = base(|name| (name == "PATH").then(|| "/usr/bin".to_owned()), Some(Path::new("/opt/bluebird/kubelet")));
        assert_eq!(base, [("PATH".to_owned(), format!("/opt/bluebird{}/usr/bin", Host::PATH_SEPARATOR))]);
    }
}
