use super::Console;
use super::args;
use super::failure::{Failure, Result};
use super::get::{by_keys, by_kinds};
use super::page::{Page, conditions, events};
use super::rows::or_none;
use super::targets::{self, Targets};
use super::words;
use crate::api::v1::{
    AssignedPort, ClusterEvent, Container, ContainerState, ContainerStatus, EndpointSlice, Node, Object, Pod, Selector, Service,
};
use crate::api::v1::{ContainerStateTerminated, container_state, object};
use crate::api::{Kind, Role, manifest};
use crate::client::Client;
use crate::error::Error;
use crate::time::millis;

pub(super) async fn run(console: &mut Console<'_>, args: &args::Describe) -> Result<()> {
    let client = console.client()?;
    let namespace = if args.all_namespaces { "" } else { console.namespace() }.to_owned();
    let labels = args.objects.selector.as_deref();
    let (objects, missing) = match targets::parse(&args.objects.words, console.namespace())? {
        Targets::Keys(keys) => by_keys(console, &client, &keys, labels).await?,
        Targets::Kinds(kinds) => (by_kinds(&client, &kinds, &namespace, labels).await?, false),
    };
    if objects.is_empty() && !missing {
        writeln!(console.io.err, "No resources found")?;
    }
    for (index, object) in objects.iter().enumerate() {
        let page = describe(console, &client, object).await?;
        let gap = if index == 0 { "" } else { "\n\n" };
        console.io.out.write_all(format!("{gap}{page}").as_bytes())?;
    }
    if missing { Err(Failure::Reported) } else { Ok(()) }
}

/// The page about one object, with what else of the cluster belongs to it.
async fn describe(console: &Console<'_>, client: &Client, object: &Object) -> Result<String> {
    let now = console.now();
    let mut page = header(object);
    match &object.kind {
        Some(object::Kind::Pod(pod)) => describe_pod(&mut page, pod),
        Some(object::Kind::Service(service)) => {
            let meta = object.meta();
            let slice = match client.get::<EndpointSlice>(&meta.namespace, &meta.name).await {
                Ok(slice) => Some(slice),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            };
            describe_service(&mut page, service, slice.as_ref());
        }
        Some(object::Kind::Node(node)) => {
            let on_node = Selector { kind: Kind::Pod.to_string(), node_name: object.meta().name.clone(), ..Default::default() };
            describe_node(&mut page, node, &client.list_objects(on_node).await?.objects);
        }
        Some(object::Kind::ConfigMap(map)) => describe_values(&mut page, map.values(), shown_text),
        Some(object::Kind::Secret(secret)) => {
            page.field("Type", &secret.r#type);
            describe_values(&mut page, secret.values(), length);
        }
        _ => page.text(&without_header(object)),
    }
    page.text(&events(&events_of(client, object).await?, &now));
    Ok(page.into_text())
}

/// What happened to an object, oldest first.
async fn events_of(client: &Client, object: &Object) -> Result<Vec<ClusterEvent>> {
    let meta = object.meta();
    let of_object = |event: &ClusterEvent| {
        let regarding = event.spec.as_ref().and_then(|spec| spec.regarding.as_ref());
        regarding.is_some_and(|regarding| {
            let same_name = object.kind().is_some_and(|kind| kind.as_str() == regarding.kind) && regarding.name == meta.name;
            same_name && (regarding.uid.is_empty() || regarding.uid == meta.uid)
        })
    };
    let mut events = client.list::<ClusterEvent>(&meta.namespace).await?;
    events.retain(of_object);
    events.sort_by_key(|event| event.spec.as_ref().and_then(|spec| spec.last_time.as_ref()).map_or(0, millis));
    Ok(events)
}

fn header(object: &Object) -> Page {
    let meta = object.meta();
    let mut page = Page::default();
    page.field("Name", &meta.name);
    if object.kind().is_some_and(|kind| kind.is_namespaced()) {
        page.field("Namespace", &meta.namespace);
    }
    page.lines("Labels", meta.labels.iter().map(|(key, value)| format!("{key}={value}")));
    page.lines("Annotations", meta.annotations.iter().map(|(key, value)| format!("{key}: {value}")));
    page.field("Created", &meta.creation_time.map_or_else(String::new, words::time));
    if let Some(time) = &meta.deletion_time {
        let grace = meta.deletion_grace_period_seconds.map_or_else(String::new, |seconds| format!(" (grace period {seconds}s)"));
        page.field("Deleted", &format!("{}{grace}", words::time(*time)));
    }
    if !meta.finalizers.is_empty() {
        page.field("Finalizers", &meta.finalizers.join(", "));
    }
    page
}

/// The spec and status of a kind that has no page of its own.
fn without_header(object: &Object) -> String {
    let yaml = manifest::to_yaml(object);
    let body = yaml.lines().skip_while(|line| *line != "spec:" && *line != "status:");
    body.map(|line| format!("{line}\n")).collect()
}

fn describe_values(page: &mut Page, values: Vec<(&str, &[u8])>, show: fn(&[u8]) -> String) {
    page.heading("Data");
    for (key, value) in values {
        page.item(key);
        page.text(&show(value).lines().map(|line| format!("    {}\n", without_control(line))).collect::<String>());
    }
}

/// A value as it is, if it is text.
fn shown_text(value: &[u8]) -> String {
    std::str::from_utf8(value).map_or_else(|_| length(value), str::to_owned)
}

/// What would drive the terminal is shown as `?`, as in tables.
fn without_control(line: &str) -> String {
    line.replace(|letter: char| letter.is_control() && letter != '\t', "?")
}

/// What may be said of a value that nobody should read over a shoulder.
fn length(value: &[u8]) -> String {
    format!("{} bytes", value.len())
}

fn describe_pod(page: &mut Page, pod: &Pod) {
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    page.field("Node", &spec.node_name);
    page.field("IP", &status.host_ip);
    page.field("Started", &status.start_time.map_or_else(String::new, words::time));
    page.field("Status", &words::pod_status(pod));
    for (name, text) in [("Reason", &status.reason), ("Message", &status.message)] {
        if !text.is_empty() {
            page.field(name, text);
        }
    }
    page.field("Restart Policy", words::restart_policy(spec.restart_policy()));
    page.field("Grace Period", &format!("{}s", spec.termination_grace_period_seconds()));
    if !spec.node_selector.is_empty() {
        page.field("Node Selector", &words::labels(&spec.node_selector));
    }
    if !spec.init_containers.is_empty() {
        page.heading("Init Containers");
    }
    for (index, (container, role)) in spec.roles().enumerate() {
        if index == spec.init_containers.len() {
            page.heading("Containers");
        }
        let seen = status.init_container_statuses.iter().chain(&status.container_statuses).find(|seen| seen.name == container.name);
        let ports: Vec<_> = status.ports.iter().filter(|port| port.container == container.name).cloned().collect();
        let policy = match (role, spec.restart_policy_of(container, role)) {
            (Role::Sidecar, _) => "Always (a sidecar)",
            (_, policy) if policy != spec.restart_policy() => words::restart_policy(policy),
            _ => "",
        };
        describe_container(page, container, policy, seen, &ports);
    }
    if !spec.volumes.is_empty() {
        page.heading("Volumes");
    }
    for volume in &spec.volumes {
        page.inner(&volume.name, &words::volume(volume));
    }
    page.text(&conditions(&status.conditions));
}

/// `policy` is said only where it isn't the pod's.
fn describe_container(page: &mut Page, container: &Container, policy: &str, seen: Option<&ContainerStatus>, ports: &[AssignedPort]) {
    page.item(&container.name);
    let command: Vec<_> = container.command.iter().chain(&container.args).map(|word| shell_word(word)).collect();
    page.inner("Command", &command.join(" "));
    if !policy.is_empty() {
        page.inner("Restart Policy", policy);
    }
    if !container.ports.is_empty() {
        page.inner("Ports", &or_none(&words::assigned_ports(ports)));
    }
    for variable in &container.env {
        page.inner("Env", &words::variable(variable));
    }
    for from in &container.env_from {
        page.inner("Env From", &words::variables(from));
    }
    for mount in &container.volume_mounts {
        page.inner("Mount", &format!("{} at {}", mount.name, mount.mount_path));
    }
    if let Some(resources) = &container.resources {
        page.inner("Requests", &or_none(&words::labels(&resources.requests)));
        page.inner("Limits", &or_none(&words::labels(&resources.limits)));
    }
    for (name, probe) in
        [("Startup", &container.startup_probe), ("Liveness", &container.liveness_probe), ("Readiness", &container.readiness_probe)]
    {
        if let Some(probe) = probe {
            page.inner(name, &words::probe(probe));
        }
    }
    let Some(seen) = seen else {
        page.inner("State", "unknown: no kubelet has taken it up");
        return;
    };
    state(page, seen.state.as_ref());
    if let Some(last) = &seen.last_termination {
        termination(page, "Last State", last);
    }
    if container.startup_probe.is_some() {
        page.inner("Started", if seen.started { "True" } else { "False" });
    }
    page.inner("Ready", if seen.ready { "True" } else { "False" });
    page.inner("Restart Count", &seen.restart_count.to_string());
    if let Some(time) = &seen.next_retry_time {
        page.inner("Next Start", &words::time(*time));
    }
}

fn state(page: &mut Page, state: Option<&ContainerState>) {
    match state.and_then(|state| state.state.as_ref()) {
        Some(container_state::State::Waiting(waiting)) => {
            page.inner("State", &format!("Waiting ({})", or_none(&waiting.reason)));
            if !waiting.message.is_empty() {
                page.inner("Message", &waiting.message);
            }
        }
        Some(container_state::State::Running(running)) => {
            let since = running.started_at.map_or_else(String::new, |time| format!(" since {}", words::time(time)));
            page.inner("State", &format!("Running{since}, pid {}", running.pid));
        }
        Some(container_state::State::Terminated(ended)) => termination(page, "State", ended),
        None => page.inner("State", "unknown"),
    }
}

fn termination(page: &mut Page, name: &str, ended: &ContainerStateTerminated) {
    let how = match ended.signal {
        0 => format!("exit code {}", ended.exit_code),
        signal => format!("signal {signal}, exit code {}", ended.exit_code),
    };
    let when = ended.finished_at.map_or_else(String::new, |time| format!(" at {}", words::time(time)));
    page.inner(name, &format!("Terminated ({}): {how}{when}", words::termination(ended)));
    if !ended.message.is_empty() {
        page.inner("Message", &ended.message);
    }
}

/// A word as one would type it into a shell.
fn shell_word(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "-_./:=,@%+$()".contains(c));
    if is_plain { word.to_owned() } else { format!("{word:?}") }
}

fn describe_service(page: &mut Page, service: &Service, slice: Option<&EndpointSlice>) {
    let spec = service.spec.clone().unwrap_or_default();
    page.field("Selector", &words::labels(&spec.selector));
    page.field("IP", &spec.cluster_ip);
    for port in &spec.ports {
        let name = if port.name.is_empty() { "<unnamed>" } else { &port.name };
        page.field("Port", &format!("{name} {}/{}", port.port, words::protocol(port.protocol())));
        page.field("Target Port", if port.target_port.is_empty() { "<default>" } else { &port.target_port });
        let endpoints = slice.iter().flat_map(|slice| &slice.spec).flat_map(|spec| &spec.endpoints);
        let addresses = endpoints.flat_map(|endpoint| {
            let same_port = endpoint.ports.iter().filter(|target| target.name == port.name);
            same_port.map(|target| format!("{} ({})", words::address(&endpoint.address, target.port), endpoint.pod_name))
        });
        page.lines("Endpoints", addresses);
    }
    page.text(&conditions(service.status.as_ref().map_or(&[], |status| &status.conditions)));
}

fn describe_node(page: &mut Page, node: &Node, pods: &[Object]) {
    let status = node.status.clone().unwrap_or_default();
    let info = status.info.unwrap_or_default();
    page.field("Status", &words::node_status(node));
    page.field("Unschedulable", if node.spec.as_ref().is_some_and(|spec| spec.unschedulable) { "true" } else { "false" });
    page.field("IP", &status.host_ip);
    for (name, text) in [("OS", &info.os), ("Arch", &info.arch), ("Kernel", &info.kernel), ("Hostname", &info.hostname)] {
        page.field(name, text);
    }
    page.field("Kubelet Version", &info.kubelet_version);
    page.lines("Capacity", status.capacity.iter().map(|(name, amount)| format!("{name}: {amount}")));
    page.lines("Capabilities", status.capabilities.iter().cloned());
    page.text(&conditions(&status.conditions));
    page.heading(&format!("Pods ({})", pods.len()));
    for pod in pods {
        let Some(object::Kind::Pod(message)) = &pod.kind else { continue };
        page.inner(&format!("{}/{}", pod.meta().namespace, pod.meta().name), &words::pod_status(message));
    }
}
