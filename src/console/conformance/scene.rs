//! Where one case is played: a namespace of its own on the cluster, and what the case has seen so far.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::case::Step;
use super::look;
use crate::api::manifest::Manifest;
use crate::api::v1::{
    ClusterEvent, Container, EndpointSlice, LogsRequest, Namespace, Object, ObjectMeta, Pod, PodPhase, PodSpec, RestartPolicy, Selector,
    lifecycle_handler, object, probe::Handler, stop_method,
};
use crate::api::{Kind, ObjectKey};
use crate::client::{Cache, Client, DeleteOptions};
use crate::console::words;
use crate::error::Error;
use crate::tasks::Tasks;

/// Between two looks at what nobody tells of: a log.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What is shown of a log that is not as it should be.
const SHOWN: usize = 400;
/// The grace period of pods that name none: what ignores requests to end shall not hold up the run.
const GRACE_SECONDS: i64 = 2;
/// On each namespace of a run.
pub(super) const LABEL: &str = "bluebird/conformance-run";

/// What all cases of a run have in common.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) client: Client,
    /// The name of this run: of its namespaces, and the value of their label.
    pub(super) run: String,
    pub(super) node: String,
    pub(super) os: String,
    /// What the node says that it can do.
    pub(super) capabilities: Vec<String>,
    /// The program, as the node names it.
    pub(super) testapp: String,
    /// How long a step may take.
    pub(super) timeout: Duration,
}

/// One case that is being played.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) stage: Stage,
    pub(super) namespace: String,
    /// Everything in the namespace.
    pub(super) cache: Cache,
    kept: BTreeMap<&'static str, String>,
    tasks: Tasks,
}

type Result<T = (), E = String> = std::result::Result<T, E>;

impl Scene {
    /// Makes the namespace.
    pub(super) async fn open(stage: &Stage, number: usize) -> Result<Scene> {
        let namespace = format!("{}-{number}", stage.run);
        let labels = [(LABEL.to_owned(), stage.run.clone())].into();
        let metadata = ObjectMeta { name: namespace.clone(), labels, ..Default::default() };
        stage.client.create(Namespace { metadata: Some(metadata), ..Default::default() }).await.map_err(told)?;
        let tasks = Tasks::new(CancellationToken::new());
        let selector = Selector { namespace: namespace.clone(), ..Default::default() };
        let cache = Cache::start(stage.client.clone(), vec![selector], &tasks);
        let folder = if stage.os == "windows" { "C:\\" } else { "/" };
        let kept = [("node", stage.node.clone()), ("folder", folder.to_owned())].into();
        Ok(Scene { stage: stage.clone(), namespace, cache, kept, tasks })
    }

    /// Removes the namespace with everything in it, and waits until it is gone: what stays is a fault, too.
    pub(super) async fn close(self) -> Result {
        self.stage.client.delete::<Namespace>("", &self.namespace, DeleteOptions::default()).await.map_err(told)?;
        let gone = async {
            loop {
                match self.stage.client.get::<Namespace>("", &self.namespace).await {
                    Err(Error::NotFound(_)) => return Ok(()),
                    Err(error) => return Err(told(error)),
                    Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        };
        let outcome = tokio::time::timeout(self.stage.timeout, gone).await;
        self.leave().await;
        outcome.unwrap_or_else(|_| Err(format!("its namespace {} can't be removed: something in it stays Terminating", self.namespace)))
    }

    /// Leaves everything as it is.
    pub(super) async fn leave(&self) {
        self.tasks.shutdown(Duration::from_secs(1)).await;
    }

    pub(super) async fn play(&mut self, step: &Step) -> Result {
        match step {
            Step::Create(manifest) => self.create(&self.filled(manifest)?).await,
            Step::Apply(manifest) => {
                let objects = self.read(&self.filled(manifest)?)?;
                self.stage.client.apply(objects, "conformance", false).await.map(drop).map_err(told)
            }
            Step::Once(pod, words) => self.start(pod, RestartPolicy::Never, words).await,
            Step::Always(pod, words) => self.start(pod, RestartPolicy::Always, words).await,
            Step::OnFailure(pod, words) => self.start(pod, RestartPolicy::OnFailure, words).await,
            Step::Phase(pod, phase) => self.phase(pod, *phase).await,
            Step::Until(pod, what, is_so) => self.until(pod, what, is_so).await.map(drop),
            Step::Log(of, expected) => same_text(&self.log(&self.request(of)).await?, &self.filled(expected)?),
            Step::Says(of, text) => self.says(of, &self.filled(text)?).await.map(drop),
            Step::Keep(name, of, start, word) => {
                let line = self.says(of, start).await?;
                let found = line.split_whitespace().nth(*word).ok_or_else(|| format!("{line:?} has no word {word}"))?;
                self.keep(name, found.to_owned());
                Ok(())
            }
            Step::KeepPort(name, pod) => {
                let seen = self.until(pod, "given a port", |pod| !look::ports(pod).is_empty()).await?;
                self.keep(name, look::ports(&seen)[0].to_string());
                Ok(())
            }
            Step::KeepFreePort(name) => {
                // Below what systems hand out by themselves.
                self.keep(name, fastrand::u16(10_000..20_000).to_string());
                Ok(())
            }
            Step::Delete(pod, grace) => self.delete(pod, *grace).await,
            Step::Gone(pod) => self.wait(&format!("pod {pod} to be gone"), |scene| scene.pod(pod).is_none().then_some(())).await,
            Step::Event(reason, text) => self.event(reason, text).await,
            Step::Endpoints(service, count) => self.endpoints(service, *count).await,
            Step::Do(doing) => doing(self).await,
        }
    }

    pub(super) fn keep(&mut self, name: &'static str, value: String) {
        self.kept.insert(name, value);
    }

    pub(super) fn kept(&self, name: &str) -> Result<&str> {
        self.kept.get(name).map(String::as_str).ok_or_else(|| format!("the case keeps nothing as @{name}@"))
    }

    /// The text with what was kept.
    fn filled(&self, text: &str) -> Result<String> {
        let mut filled = String::with_capacity(text.len());
        for (index, part) in text.split('@').enumerate() {
            filled += if index % 2 == 0 { part } else { self.kept(part)? };
        }
        Ok(filled)
    }

    async fn start(&self, name: &str, policy: RestartPolicy, words: &[&str]) -> Result {
        let args = words.iter().map(|word| self.filled(word)).collect::<Result<_>>()?;
        let container = Container { name: "main".to_owned(), command: vec!["testapp".to_owned()], args, ..Default::default() };
        let mut spec = PodSpec { containers: vec![container], ..Default::default() };
        spec.set_restart_policy(policy);
        let metadata = ObjectMeta { name: name.to_owned(), namespace: self.namespace.clone(), ..Default::default() };
        self.create_all(vec![Object { kind: Some(object::Kind::Pod(Pod { metadata: Some(metadata), spec: Some(spec), status: None })) }])
            .await
    }

    pub(super) async fn create(&self, manifest: &str) -> Result {
        self.create_all(self.read(manifest)?).await
    }

    fn read(&self, manifest: &str) -> Result<Vec<Object>> {
        let mut read = Manifest::new(&self.namespace);
        read.read(manifest, "the case").map_err(|faults| faults.to_string())?;
        Ok(read.into_objects())
    }

    async fn create_all(&self, objects: Vec<Object>) -> Result {
        for mut object in objects {
            if let Some(object::Kind::Pod(pod)) = &mut object.kind {
                self.cast(pod);
            }
            self.stage.client.create_object(object).await.map_err(told)?;
        }
        Ok(())
    }

    /// Makes a pod one of this run: on its node, with its program.
    fn cast(&self, pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        spec.node_name.clone_from(&self.stage.node);
        spec.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
        for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
            let probes = [&mut container.startup_probe, &mut container.liveness_probe, &mut container.readiness_probe];
            let probed = probes.into_iter().flatten().filter_map(|probe| match &mut probe.handler {
                Some(Handler::Exec(exec)) => exec.command.first_mut(),
                _ => None,
            });
            let lifecycle = container.lifecycle.as_mut();
            let (before, stop) = lifecycle.map_or((None, None), |lifecycle| (lifecycle.pre_stop.as_mut(), lifecycle.stop.as_mut()));
            let before = before.and_then(|before| match &mut before.handler {
                Some(lifecycle_handler::Handler::Exec(exec)) => exec.command.first_mut(),
                _ => None,
            });
            let stop = stop.and_then(|stop| match &mut stop.method {
                Some(stop_method::Method::Command(exec)) => exec.command.first_mut(),
                _ => None,
            });
            for program in
                container.command.first_mut().into_iter().chain(probed).chain(before).chain(stop).filter(|program| *program == "testapp")
            {
                program.clone_from(&self.stage.testapp);
            }
        }
    }

    pub(super) fn pod(&self, name: &str) -> Option<Pod> {
        self.cache.get::<Pod>(&self.namespace, name).map(|pod| (*pod).clone())
    }

    pub(super) async fn delete(&self, pod: &str, grace_period_seconds: Option<i64>) -> Result {
        let key = ObjectKey::new(Kind::Pod, &self.namespace, pod);
        let options = DeleteOptions { grace_period_seconds, ..Default::default() };
        self.stage.client.delete_object(&key, options).await.map(drop).map_err(told)
    }

    async fn phase(&self, pod: &str, phase: PodPhase) -> Result {
        let wanted = words::pod_phase(phase);
        let seen = self.until(pod, &wanted, |seen| look::phase(seen) == phase || look::is_over(seen)).await?;
        if look::phase(&seen) == phase { Ok(()) } else { Err(format!("pod {pod} should be {wanted}, but is {}", look::describe(&seen))) }
    }

    /// Waits until a pod is so.
    pub(super) async fn until(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let look = |scene: &Scene| scene.pod(name).filter(|pod| is_so(pod));
        self.wait(&format!("pod {name} to be so: {what}"), look).await.map_err(|why| {
            let now = self.pod(name).map_or_else(|| "there is no such pod".to_owned(), |pod| format!("it is {}", look::describe(&pod)));
            format!("{why}; {now}")
        })
    }

    async fn endpoints(&self, service: &str, count: usize) -> Result {
        let ready = |scene: &Scene| {
            let slice = scene.cache.get::<EndpointSlice>(&scene.namespace, service);
            slice.and_then(|slice| Some(slice.spec.as_ref()?.endpoints.len())).unwrap_or(0)
        };
        self.wait(&format!("{count} endpoints behind service {service}"), |scene| (ready(scene) == count).then_some(())).await
    }

    /// Waits for an event with this reason whose note contains a text.
    pub(super) async fn event(&self, reason: &str, text: &str) -> Result {
        let told = |scene: &Scene| {
            let events = scene.cache.list_in::<ClusterEvent>(&scene.namespace);
            let mut specs = events.iter().filter_map(|event| event.spec.as_ref());
            specs.any(|spec| spec.reason == reason && spec.note.contains(text))
        };
        self.wait(&format!("an event {reason} with {text:?}"), |scene| told(scene).then_some(())).await
    }

    /// Waits until `look` finds something in the namespace.
    pub(super) async fn wait<T>(&self, what: &str, mut look: impl FnMut(&Scene) -> Option<T>) -> Result<T> {
        let mut revisions = self.cache.revisions();
        let search = async {
            loop {
                revisions.mark_unchanged();
                if self.cache.revision().0 > 0
                    && let Some(found) = look(self)
                {
                    return Ok(found);
                }
                if revisions.changed().await.is_err() {
                    return Err("the watch has ended".to_owned());
                }
            }
        };
        let seconds = self.stage.timeout.as_secs();
        tokio::time::timeout(self.stage.timeout, search).await.unwrap_or_else(|_| Err(format!("waited {seconds} s in vain for {what}")))
    }

    /// Asks for the log of `POD` or `POD/CONTAINER`.
    pub(super) fn request(&self, of: &str) -> LogsRequest {
        let (pod, container) = of.split_once('/').unwrap_or((of, ""));
        LogsRequest { namespace: self.namespace.clone(), pod: pod.to_owned(), container: container.to_owned(), ..Default::default() }
    }

    /// All of a log, as text.
    pub(super) async fn log(&self, request: &LogsRequest) -> Result<String> {
        self.log_bytes(request).await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// All of a log.
    pub(super) async fn log_bytes(&self, request: &LogsRequest) -> Result<Vec<u8>> {
        let read = async {
            let mut bytes = Vec::new();
            let mut pieces = self.stage.client.logs(request.clone()).await?;
            while let Some(piece) = pieces.next().await? {
                bytes.extend(piece.data);
            }
            Ok(bytes)
        };
        let read = tokio::time::timeout(self.stage.timeout, read).await;
        read.map_err(|_| format!("the log of pod {} does not end", request.pod))?.map_err(told)
    }

    /// Waits until a text stands in a log, and gives the line in which it does.
    pub(super) async fn says(&self, of: &str, text: &str) -> Result<String> {
        let deadline = Instant::now() + self.stage.timeout;
        loop {
            let log = self.log(&self.request(of)).await;
            let complete = log.as_deref().unwrap_or_default();
            let complete = &complete[..complete.rfind('\n').map_or(0, |end| end + 1)];
            match complete.lines().find(|line| line.contains(text)) {
                Some(line) => return Ok(line.to_owned()),
                None if Instant::now() < deadline => tokio::time::sleep(LOOK_AGAIN).await,
                None => return Err(format!("the log of {of} never says {text:?}: {}", log.map_or_else(|why| why, |log| shortened(&log)))),
            }
        }
    }
}

/// An error of the API, in words.
pub(super) fn told(error: Error) -> String {
    crate::console::failure::describe(&error)
}

/// What is shown of a text.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}

/// Both are the same, or why not.
pub(super) fn same_text(found: &str, expected: &str) -> Result {
    if found == expected { Ok(()) } else { Err(format!("the log is {}, not {}", shortened(found), shortened(expected))) }
}
