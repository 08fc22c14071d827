//! Clients that read and write groups of objects all the time, and note what they were told.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bluebird::api::v1::{LabelSelector, Lease, LeaseSpec, Object, Selector};
use bluebird::api::{Resource, Revision};
use bluebird::client::{Client, DeleteOptions};
use bluebird::error::{Error, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::history::Group;
use crate::model::{Answered, Asked, Held, KEYS, Objects, Value};

/// How many groups are in use at a time, and how many clients use each of them.
const GROUPS: usize = 4;
const CLIENTS_PER_GROUP: usize = 4;
/// A group is used for so many operations, and until the outcome of so many writes is unknown: the checker tries all their possible moments.
const MAX_OPERATIONS: usize = 300;
const MAX_UNKNOWN: usize = 4;
/// How long a client waits for an answer before it gives up.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client pauses at most after an operation, so that there is something to check but not only that to do.
const MAX_PAUSE_MS: u64 = 8;

/// The clients at work.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    running: tokio::task::JoinSet<()>,
    over: CancellationToken,
}

struct Shared {
    /// The groups in use, by slot.
    slots: Vec<Mutex<Arc<Group>>>,
    /// Those that were used before.
    used: Mutex<Vec<Arc<Group>>>,
    /// Names the next group.
    next_group: AtomicU64,
    unknown: AtomicUsize,
    /// How many operations were answered.
    answered: watch::Sender<usize>,
}

impl Clients {
    /// Starts them; each uses one of the servers at these URLs. Groups are numbered from `first_group`.
    pub(crate) fn start(urls: &[String], rng: &mut fastrand::Rng, first_group: u64) -> Clients {
        let new_group = |number: usize| Mutex::new(Arc::new(Group::new(format!("g{}", first_group + number as u64))));
        let shared = Arc::new(Shared {
            slots: (0..GROUPS).map(new_group).collect(),
            used: Mutex::default(),
            next_group: AtomicU64::new(first_group + GROUPS as u64),
            unknown: AtomicUsize::new(0),
            answered: watch::Sender::new(0),
        });
        let (mut running, over) = (tokio::task::JoinSet::new(), CancellationToken::new());
        for number in 0..GROUPS * CLIENTS_PER_GROUP {
            let client = Client::new(&urls[number % urls.len()]).expect("a URL");
            running.spawn(work(client, shared.clone(), number / CLIENTS_PER_GROUP, rng.fork(), over.clone()));
        }
        Clients { shared, running, over }
    }

    /// How many operations were answered so far.
    pub(crate) fn answered(&self) -> watch::Receiver<usize> {
        self.shared.answered.subscribe()
    }

    /// Ends them, and returns every group that they used, the operations that were answered, and those that never were.
    pub(crate) async fn stop(mut self) -> (Vec<Arc<Group>>, usize, usize) {
        self.over.cancel();
        while let Some(client) = self.running.join_next().await {
            client.expect("a client does not panic");
        }
        let mut groups = std::mem::take(&mut *self.shared.used.lock().expect("no panic while held"));
        groups.extend(self.shared.slots.iter().map(|slot| slot.lock().expect("no panic while held").clone()));
        (groups, *self.shared.answered.borrow(), self.shared.unknown.load(Ordering::Relaxed))
    }
}

impl Shared {
    /// The group of a slot; a new one when the present one was used enough.
    fn group(&self, slot: usize) -> Arc<Group> {
        let mut group = self.slots[slot].lock().expect("no panic while held");
        let (operations, unknown) = group.len();
        if operations >= MAX_OPERATIONS || unknown >= MAX_UNKNOWN {
            let next = Group::new(format!("g{}", self.next_group.fetch_add(1, Ordering::Relaxed)));
            self.used.lock().expect("no panic while held").push(std::mem::replace(&mut *group, Arc::new(next)));
        }
        group.clone()
    }
}

async fn work(client: Client, shared: Arc<Shared>, slot: usize, mut rng: fastrand::Rng, over: CancellationToken) {
    let mut seen = Objects::default();
    let mut of = String::new();
    while !over.is_cancelled() {
        let group = shared.group(slot);
        if of != group.name {
            (of, seen) = (group.name.clone(), Objects::default());
        }
        match perform(&client, &group, choose(&group, &seen, &mut rng)).await {
            Some((asked, answered)) => {
                learn(&mut seen, &asked, &answered);
                shared.answered.send_modify(|count| *count += 1);
            }
            None => {
                shared.unknown.fetch_add(1, Ordering::Relaxed);
                until_it_answers(&client, &group.name, &over).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(..MAX_PAUSE_MS))).await;
    }
}

/// What to ask next. What this client has seen last is what it makes its conditions of.
fn choose(group: &Group, seen: &Objects, rng: &mut fastrand::Rng) -> Asked {
    let key = rng.usize(..KEYS);
    let held = seen[key].map_or(0, |held| held.revision);
    let expected = if rng.bool() { held } else { 0 };
    match rng.u8(..10) {
        0 | 1 => Asked::Create { key, value: group.new_value() },
        2 | 3 => Asked::Update { key, value: group.new_value(), expected },
        4 => Asked::Delete { key, expected },
        5 => Asked::Apply { keys: [key, (key + 1) % KEYS], value: group.new_value() },
        6 | 7 => Asked::Get { key },
        _ => Asked::List,
    }
}

fn learn(seen: &mut Objects, asked: &Asked, answered: &Answered) {
    match (asked, answered) {
        (Asked::Create { key, value } | Asked::Update { key, value, .. }, Answered::Written(revision)) => {
            seen[*key] = Some(Held { value: *value, revision: *revision });
        }
        (Asked::Get { key }, Answered::Found(held)) => seen[*key] = Some(*held),
        (_, Answered::Listed { objects, .. }) => *seen = *objects,
        _ => {}
    }
}

/// Asks, notes it in the group, and tells what was answered; `None` if nobody knows what became of it.
pub(crate) async fn perform(client: &Client, group: &Group, asked: Asked) -> Option<(Asked, Answered)> {
    let number = group.call(asked.clone());
    let answered = match tokio::time::timeout(PATIENCE, ask(client, &group.name, &asked)).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(Error::AlreadyExists(_))) => Answered::Exists,
        Ok(Err(Error::NotFound(_))) => Answered::Missing,
        Ok(Err(Error::Conflict { .. })) => Answered::Changed,
        Ok(Err(error)) => {
            assert!(error.is_retryable(), "{asked:?} in {} was refused: {error}", group.name);
            Answered::Unknown { revision: 0 }
        }
        Err(_) => Answered::Unknown { revision: 0 },
    };
    group.answered(number, answered.clone());
    (answered != Answered::Unknown { revision: 0 }).then_some((asked, answered))
}

/// A server that is away answers nothing; what it is asked meanwhile would only be noted as unknown.
async fn until_it_answers(client: &Client, group: &str, over: &CancellationToken) {
    while !over.is_cancelled() {
        match tokio::time::timeout(PATIENCE, client.get::<Lease>("", &name(group, 0))).await {
            Ok(Ok(_) | Err(Error::NotFound(_))) => return,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn ask(client: &Client, group: &str, asked: &Asked) -> Result<Answered> {
    let revision = |lease: Lease| Answered::Written(lease.meta().resource_version);
    match *asked {
        Asked::Create { key, value } => client.create(lease(group, key, value)).await.map(revision),
        Asked::Update { key, value, expected } => {
            let mut lease = lease(group, key, value);
            lease.meta_mut().resource_version = expected;
            client.update(lease).await.map(revision)
        }
        Asked::Delete { key, expected } => {
            let resource_version = (expected != 0).then_some(Revision(expected));
            let options = DeleteOptions { resource_version, ..Default::default() };
            client.delete::<Lease>("default", &name(group, key), options).await.map(revision)
        }
        Asked::Apply { keys, value } => {
            let objects = keys.map(|key| lease(group, key, value).into_object());
            client.apply(objects.to_vec(), "faults", false).await.map(|applied| Answered::Written(applied.revision))
        }
        Asked::Get { key } => client.get::<Lease>("default", &name(group, key)).await.map(|lease| Answered::Found(held(&lease))),
        Asked::List => {
            let labels = LabelSelector { match_labels: [("group".to_owned(), group.to_owned())].into(), ..Default::default() };
            let selector = Selector { kind: "Lease".to_owned(), labels: Some(labels), ..Default::default() };
            let listed = client.list_objects(selector).await?;
            Ok(Answered::Listed { objects: objects(group, &listed.objects), revision: listed.revision.0 })
        }
    }
}

/// The object of this number in a group.
pub(crate) fn name(group: &str, key: usize) -> String {
    format!("{group}-{key}")
}

pub(crate) fn lease(group: &str, key: usize, value: Value) -> Lease {
    let spec = LeaseSpec { holder_identity: value.to_string(), lease_duration_seconds: 1, ..Default::default() };
    let mut lease = Lease { spec: Some(spec), ..Default::default() };
    lease.meta_mut().name = name(group, key);
    lease.meta_mut().labels.insert("group".to_owned(), group.to_owned());
    lease
}

/// What a lease says.
pub(crate) fn held(lease: &Lease) -> Held {
    let value = lease.spec.as_ref().and_then(|spec| spec.holder_identity.parse().ok());
    Held { value: value.expect("a value that a client wrote"), revision: lease.meta().resource_version }
}

/// The objects of a group among these.
pub(crate) fn objects(group: &str, listed: &[Object]) -> Objects {
    let leases: Vec<_> = listed.iter().filter_map(Lease::from_object_ref).collect();
    std::array::from_fn(|key| leases.iter().find(|lease| lease.meta().name == name(group, key)).map(|lease| held(lease)))
}
