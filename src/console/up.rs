//! `bluebird up`: a cluster in this process, and the pods of manifests in it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::args::{self, Files};
use super::failure::{Failure, Result, short_name};
use super::progress::Progress;
use super::screen::Screen;
use super::{Console, apply, input, led_to, words};
use crate::api::manifest::Manifest;
use crate::api::v1::{ClusterEvent, Object, Pod, Service};
use crate::api::{Kind, ObjectKey};
use crate::client::{Cache, Cached, Changes, Client};
use crate::cluster::{Cluster, Place};
use crate::tasks::Tasks;
use crate::time::millis;

/// How long a service's address may take to answer once its pods are ready.
const ROUTE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at what has no event: a service's address, and the ages in a table.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long following the cluster may take to end.
const TASKS_GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(console: &mut Console<'_>, args: args::Up) -> Result<()> {
    let manifest = match args.files.is_empty() {
        true => Manifest::new(console.namespace()),
        false => input::read(console, &Files { files: args.files.clone(), recursive: false })?,
    };
    // From now on Ctrl-C doesn't end the process at once.
    let asked_to_end = (console.io.asked_to_end)();
    let place = Place { data_dir: args.data_dir.clone(), listen: args.listen.clone(), service_cidr: args.service_cidr.clone() };
    let started = Cluster::start(place, console.io.clock.clone()).await;
    let cluster = started.map_err(|error| Failure::Failed(error.to_string()))?;
    let tasks = Tasks::new(CancellationToken::new());
    let must_be_ready = args.wait || args.exit;
    let outcome = tokio::select! {
        outcome = stay_up(console, &args, &cluster, &manifest, &tasks) => outcome,
        refusal = cluster.refused() => Err(refusal.into()),
        asked = asked_to_end => match asked {
            Ok(()) if must_be_ready => Err(Failure::Failed("interrupted".to_owned())),
            asked => asked.map_err(Failure::from),
        },
    };
    tasks.shutdown(TASKS_GRACE).await;
    stop(console, cluster).await?;
    outcome
}

/// Ends everything; whoever asks a second time does not want to wait.
async fn stop(console: &mut Console<'_>, cluster: Cluster) -> Result<()> {
    let asked_again = (console.io.asked_to_end)();
    // Whoever closed the pipe still wants the processes to end.
    let _ = writeln!(console.io.err, "Stopping all pods…");
    tokio::select! {
        () = cluster.shutdown() => Ok(()),
        _ = asked_again => Err(Failure::Failed("stopped at once: processes may still run, and the next `bluebird up` takes them over".to_owned())),
    }
}

/// Brings the manifest up, and stays as long as nobody asks for an end and nothing goes wrong.
async fn stay_up(console: &mut Console<'_>, args: &args::Up, cluster: &Cluster, manifest: &Manifest, tasks: &Tasks) -> Result<()> {
    let (client, began) = (cluster.client(), Instant::now());
    let data_dir = cluster.data_dir().display();
    writeln!(console.io.out, "BlueBird {} is up at {}, with its data in {data_dir}", env!("CARGO_PKG_VERSION"), cluster.url())?;
    let applied = if manifest.objects().is_empty() {
        Vec::new()
    } else {
        apply::apply(console, &client, manifest, &args::HowToApply::default()).await?
    };
    let cache = Cache::of_kinds(client.clone(), &[Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Event], tasks);
    let mut changes = cache.subscribe();
    if !cache.synced().await {
        return Err(Failure::Failed("the apiserver ended".to_owned()));
    }
    let pods: Vec<_> = applied.iter().filter_map(Object::key).filter(|key| key.kind() == Kind::Pod).collect();
    let deadline = (args.wait || args.exit).then(|| began + args.timeout);
    wait_until_ready(console, &cache, &mut changes, &pods, deadline).await?;
    let services: Vec<_> = applied.iter().filter_map(Object::key).filter(|key| key.kind() == Kind::Service).collect();
    wait_until_led_to(cluster, &cache, &services, &pods, deadline).await;
    for service in &services {
        announce(console, &client, &cache, service, deadline).await?;
    }
    if !pods.is_empty() {
        let took = began.elapsed().as_secs_f64();
        match pods.len() {
            1 => writeln!(console.io.out, "The pod is ready after {took:.1} s.")?,
            count => writeln!(console.io.out, "All {count} pods are ready after {took:.1} s.")?,
        }
    }
    if args.exit {
        return Ok(());
    }
    writeln!(console.io.out, "Events follow; Ctrl-C stops everything.")?;
    follow_events(console, &cache, &mut changes).await
}

/// Shows how the pods come up; ends when all are ready. With a deadline, it fails with each pod's reason when that is over or a pod can't
/// become ready any more.
async fn wait_until_ready(
    console: &mut Console<'_>,
    cache: &Cache,
    changes: &mut Changes,
    keys: &[ObjectKey],
    deadline: Option<Instant>,
) -> Result<()> {
    let (mut screen, mut shown) = (Screen::default(), None);
    loop {
        let progress = observe(console, cache, keys);
        show(console, &mut screen, shown.as_ref(), &progress)?;
        if progress.is_ready() {
            return Ok(());
        }
        let is_overdue = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if deadline.is_some() && (is_overdue || progress.has_failed()) {
            let why = if is_overdue { "not ready in time" } else { "can't become ready" };
            return Err(Failure::Failed(format!("{why}:\n{}", progress.reasons().join("\n"))));
        }
        shown = Some(progress);
        let look_again = match ((console.io.terminal)(), deadline) {
            (Some(_), _) => Instant::now() + LOOK_AGAIN * 10,
            (None, deadline) => deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(60)),
        };
        let wake = deadline.map_or(look_again, |deadline| deadline.min(look_again));
        if let Ok(None) = tokio::time::timeout_at(wake, changes.next()).await {
            return Err(Failure::Failed("the apiserver ended".to_owned()));
        }
    }
}

fn observe(console: &Console<'_>, cache: &Cache, keys: &[ObjectKey]) -> Progress {
    let pods: HashMap<ObjectKey, Cached<Pod>> =
        keys.iter().filter_map(|key| Some((key.clone(), cache.get(key.namespace(), key.name())?))).collect();
    Progress::of(keys, |key| pods.get(key).map(|pod| &**pod), &console.now())
}

/// A table in place on a terminal, and a line for each change elsewhere.
fn show(console: &mut Console<'_>, screen: &mut Screen, before: Option<&Progress>, progress: &Progress) -> Result<()> {
    let text = match (console.io.terminal)() {
        Some(_) if before == Some(progress) => String::new(),
        Some(size) => screen.draw(&progress.table(), size),
        None => progress.news(before).iter().map(|line| format!("{line}\n")).collect(),
    };
    console.io.out.write_all(text.as_bytes())?;
    Ok(console.io.out.flush()?)
}

/// Waits until connections to the services are led to every pod that is ready, as long as a service may take to answer.
async fn wait_until_led_to(cluster: &Cluster, cache: &Cache, services: &[ObjectKey], pods: &[ObjectKey], deadline: Option<Instant>) {
    let overdue = deadline.map_or(Instant::now() + ROUTE_DEADLINE, |deadline| deadline.min(Instant::now() + ROUTE_DEADLINE));
    let led_to = async {
        let listed_at = || led_to::listed_at(cache, services, pods);
        if cache.revisions().wait_for(|_| listed_at().is_some()).await.is_ok()
            && let Some(revision) = listed_at()
        {
            cluster.routed(revision).await;
        }
    };
    let _ = tokio::time::timeout_at(overdue, led_to).await;
}

/// Says at which URL a service answers, once it does.
async fn announce(console: &mut Console<'_>, client: &Client, cache: &Cache, key: &ObjectKey, deadline: Option<Instant>) -> Result<()> {
    let overdue = deadline.map_or(Instant::now() + ROUTE_DEADLINE, |deadline| deadline.min(Instant::now() + ROUTE_DEADLINE));
    let service = loop {
        let service: Service = match cache.get::<Service>(key.namespace(), key.name()) {
            Some(service) => (*service).clone(),
            None => client.get(key.namespace(), key.name()).await?,
        };
        let has_address = service.spec.as_ref().is_some_and(|spec| !spec.cluster_ip.is_empty());
        if has_address || Instant::now() >= overdue {
            break service;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let spec = service.spec.unwrap_or_default();
    if spec.cluster_ip.is_empty() {
        writeln!(console.io.err, "{} has no address yet; `bluebird describe service {}` may say why", short_name(key), key.name())?;
        return Ok(());
    }
    for port in &spec.ports {
        let address = words::address(&spec.cluster_ip, port.port);
        let answers = match address.parse() {
            Ok(address) => answers(address, overdue).await,
            Err(_) => false,
        };
        let hint = if answers { "" } else { " (it does not answer yet)" };
        writeln!(console.io.out, "{} is at http://{address}/{hint}", short_name(key))?;
    }
    Ok(console.io.out.flush()?)
}

/// Whether connections are led to somebody there before it is too late.
async fn answers(address: SocketAddr, deadline: Instant) -> bool {
    let reach = async {
        while !is_led_on(address).await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout_at(deadline, reach).await.is_ok()
}

/// Whether a connection is taken and kept. A router that knows of no pod takes it, too, and closes it at once.
async fn is_led_on(address: SocketAddr) -> bool {
    let Ok(mut connection) = TcpStream::connect(address).await else { return false };
    match tokio::time::timeout(LOOK_AGAIN, connection.read(&mut [0])).await {
        Ok(read) => read.is_ok_and(|bytes| bytes > 0),
        Err(_) => true,
    }
}

/// Prints every event from now on.
async fn follow_events(console: &mut Console<'_>, cache: &Cache, changes: &mut Changes) -> Result<()> {
    let began = millis(&console.now());
    let mut counts: HashMap<ObjectKey, u32> = HashMap::new();
    while let Some(changed) = changes.next().await {
        for key in changed.iter().filter(|key| key.kind() == Kind::Event) {
            let Some(event) = cache.get::<ClusterEvent>(key.namespace(), key.name()) else { continue };
            let Some(spec) = &event.spec else { continue };
            let is_old = spec.last_time.as_ref().is_some_and(|time| millis(time) < began);
            if !is_old && counts.insert(key.clone(), spec.count) != Some(spec.count) {
                let subject = spec.regarding.clone().unwrap_or_default();
                let kind = words::event_type(spec.r#type());
                writeln!(console.io.out, "{kind} {}/{} {}: {}", subject.kind.to_lowercase(), subject.name, spec.reason, spec.note)?;
            }
        }
        console.io.out.flush()?;
    }
    Err(Failure::Failed("the apiserver ended".to_owned()))
}
