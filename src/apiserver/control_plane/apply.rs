//! `Apply`: several objects at one revision, or none of them.

use std::collections::HashSet;

use prost::Message as _;

use super::prune::{self, Prune};
use crate::api::v1::{ApplyOutcome, ApplyRequest, Object};
use crate::api::{Kind, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_OBJECTS, ObjectKey, Revision};
use crate::apiserver::Frame;
use crate::apiserver::ownership::Applier;
use crate::apiserver::writer::{ATTEMPTS, Answer, Writer, contended, key_of, new_uid, require_namespace};
use crate::apiserver::writes::{self, Change};
use crate::error::{Error, Result, Violation};
use crate::store::{Condition, Snapshot, Stored, Transaction, Write};

/// The longest name of a field manager.
const MAX_FIELD_MANAGER: usize = 128;

/// Answers a request.
pub(super) async fn apply(writer: &Writer, mut request: ApplyRequest) -> Result<Frame> {
    let keys = check(&request)?;
    let prune = prune::begin(&mut request, &keys)?;
    let by = Applier { manager: request.field_manager, force: request.force, now: writer.clock.now() };
    for _ in 0..ATTEMPTS {
        let snapshot = writer.store.current().await?;
        let mut plan = plan(&snapshot, &keys, &request.objects, &by, prune.as_ref()).await?;
        let writes = std::mem::take(&mut plan.writes);
        if request.dry_run || writes.is_empty() {
            return response(plan.answered(writes.into_iter().map(planned)), snapshot.revision());
        }
        match writer.store.commit(Transaction { writes }).await {
            Ok(committed) => {
                let stored = committed.objects.into_iter().map(|object| object.map(Answer::Stored));
                return response(plan.answered(stored), committed.revision);
            }
            // Somebody else was faster: decide anew by what is there now, conditions of the request included.
            Err(Error::Conflict { .. } | Error::AlreadyExists(_) | Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(keys.first().map_or_else(|| Error::Unavailable("the apply-set changes all the time; try again".to_owned()), contended))
}

/// What is wrong whatever is stored; else the objects' keys.
fn check(request: &ApplyRequest) -> Result<Vec<ObjectKey>> {
    let count = request.objects.len();
    if (count == 0 && !request.prune) || count > MAX_TRANSACTION_OBJECTS {
        return Err(Error::invalid("objects", format!("{count} objects; from 1 to {MAX_TRANSACTION_OBJECTS} are taken")));
    }
    if request.field_manager.is_empty() || request.field_manager.chars().count() > MAX_FIELD_MANAGER {
        return Err(Error::invalid("field_manager", format!("must say who applies, in 1 to {MAX_FIELD_MANAGER} characters")));
    }
    let mut keys = Vec::with_capacity(count);
    let mut seen = HashSet::with_capacity(count);
    for (index, object) in request.objects.iter().enumerate() {
        let key = key_of(object).map_err(|error| at(index, error))?;
        if !seen.insert(key.clone()) {
            return Err(Error::invalid(format!("objects[{index}]"), format!("{key} is named twice")));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// What becomes of each object, and the writes that make it so.
struct Plan {
    /// Without an answer where that is what the write for it makes.
    results: Vec<Outcome>,
    writes: Vec<Write>,
    /// Which result each of the first writes is for.
    written: Vec<usize>,
}

type Outcome = (ApplyOutcome, Option<Answer>);

async fn plan(snapshot: &Snapshot, keys: &[ObjectKey], objects: &[Object], by: &Applier, prune: Option<&Prune>) -> Result<Plan> {
    let mut plan = Plan { results: Vec::with_capacity(keys.len()), writes: Vec::new(), written: Vec::new() };
    let (mut violations, mut conflicts) = (Vec::new(), Vec::new());
    for (index, (key, object)) in keys.iter().zip(objects).enumerate() {
        match decide(snapshot, key, object, by) {
            Ok(Decision::Write(outcome, write)) => plan.write(outcome, None, write),
            Ok(Decision::Nothing(stored)) => plan.results.push((ApplyOutcome::Unchanged, Some(Answer::Stored(stored)))),
            // Faults of all objects are told at once, and conflicts, too.
            Err(Error::ApplyConflict(found)) => conflicts.extend(found),
            Err(error) => violations.extend(violations_at(index, error)?),
        }
    }
    writes::checked(violations)?;
    if !conflicts.is_empty() {
        return Err(Error::ApplyConflict(conflicts));
    }
    let required = required(snapshot, keys, &plan)?;
    if let Some(prune) = prune {
        for stored in prune.surplus(snapshot).await {
            if let Some((answer, write)) = prune.decide(&stored, by.now)? {
                plan.write(ApplyOutcome::Pruned, answer, write);
            }
        }
        plan.check_size()?;
    }
    if !plan.writes.is_empty() {
        plan.writes.extend(required);
    }
    Ok(plan)
}

impl Plan {
    fn write(&mut self, outcome: ApplyOutcome, answer: Option<Answer>, write: Write) {
        self.writes.push(write);
        self.written.push(self.results.len());
        self.results.push((outcome, answer));
    }

    /// The results, with these answers to the writes where there is one.
    fn answered(mut self, answers: impl Iterator<Item = Option<Answer>>) -> Vec<Outcome> {
        for (index, answer) in self.written.into_iter().zip(answers) {
            let result = &mut self.results[index].1;
            *result = answer.or(result.take());
        }
        self.results
    }

    /// Nobody can tell beforehand how much is pruned, so whoever asks hears how much it is.
    fn check_size(&self) -> Result<()> {
        // What is removed counts, too: one revision has to fit one message of a watch.
        let sizes = self.writes.iter().zip(&self.written).map(|(write, index)| match (write, &self.results[*index].1) {
            (Write::Put { object, .. }, _) => object.encoded_len() + MAX_VERSION_BYTES,
            (_, Some(Answer::Planned(object))) => object.encoded_len() + MAX_VERSION_BYTES,
            (_, Some(Answer::Stored(stored))) => stored.bytes.len(),
            (_, None) => 0,
        });
        let (objects, bytes) = (self.writes.len(), sizes.sum());
        if objects > MAX_TRANSACTION_OBJECTS || bytes > MAX_TRANSACTION_BYTES {
            return Err(Error::TransactionTooLarge { objects, bytes });
        }
        Ok(())
    }
}

/// What a write makes, if that is an object.
fn planned(write: Write) -> Option<Answer> {
    match write {
        Write::Put { object, .. } => Some(Answer::Planned(Box::new(object))),
        Write::Delete { .. } | Write::Require { .. } => None,
    }
}

/// By how much an object may grow when it gets its `resource_version`.
const MAX_VERSION_BYTES: usize = 11;

/// What becomes of one object.
#[allow(clippy::large_enum_variant, reason = "nearly all are writes")]
enum Decision {
    /// It is so already.
    Nothing(Stored),
    Write(ApplyOutcome, Write),
}

fn decide(snapshot: &Snapshot, key: &ObjectKey, given: &Object, by: &Applier) -> Result<Decision> {
    let condition = given.meta();
    let Some(stored) = snapshot.get(key) else {
        writes::check_condition(key, &Default::default(), &condition.uid, condition.resource_version)?;
        let object = writes::apply_new(given.clone(), by, new_uid())?;
        return Ok(Decision::Write(ApplyOutcome::Created, Write::Put { object, condition: Condition::Absent }));
    };
    let old = stored.decode();
    writes::check_condition(key, old.meta(), &condition.uid, condition.resource_version)?;
    Ok(match writes::apply(&old, given.clone(), by)? {
        Change::Nothing => Decision::Nothing(stored.clone()),
        Change::Put(object) => Decision::Write(ApplyOutcome::Configured, Write::Put { object, condition: Condition::At(stored.revision) }),
        Change::Remove => return Err(Error::internal("an apply removes nothing")),
    })
}

/// What must stay as it is: the objects that are right already, and the namespaces of new objects unless they come in the same request.
fn required(snapshot: &Snapshot, keys: &[ObjectKey], plan: &Plan) -> Result<Vec<Write>> {
    let mut required = Vec::new();
    let results = || keys.iter().zip(&plan.results);
    let mut known: HashSet<ObjectKey> =
        results().filter(|(_, (outcome, _))| *outcome == ApplyOutcome::Created).map(|(key, _)| key.clone()).collect();
    for (key, (outcome, answer)) in results() {
        match (outcome, answer) {
            (ApplyOutcome::Created, _) => {
                if known.insert(ObjectKey::new(Kind::Namespace, "", key.namespace())) {
                    required.extend(require_namespace(snapshot, key)?);
                }
            }
            (_, Some(Answer::Stored(stored))) => {
                required.push(Write::Require { key: key.clone(), condition: Condition::At(stored.revision) });
            }
            (_, Some(Answer::Planned(_)) | None) => {}
        }
    }
    Ok(required)
}

/// The faults of one object; any other error ends the whole request.
fn violations_at(index: usize, error: Error) -> Result<Vec<Violation>> {
    match at(index, error) {
        Error::Invalid(violations) => Ok(violations),
        error => Err(error),
    }
}

/// The error with paths that begin at the object's place in the request.
fn at(index: usize, error: Error) -> Error {
    match error {
        Error::Invalid(violations) => {
            let placed = |violation: Violation| Violation { path: format!("objects[{index}].{}", violation.path), ..violation };
            Error::Invalid(violations.into_iter().map(placed).collect())
        }
        error => error,
    }
}

fn response(results: Vec<Outcome>, revision: Revision) -> Result<Frame> {
    let mut response = Frame::new();
    for (outcome, answer) in results {
        let answer = answer.ok_or_else(|| Error::internal("the store answered a write without its object"))?;
        let mut result = Frame::new();
        result.push_message(1, answer.into_bytes());
        result.push_uint64(2, outcome as u64);
        response.push_frame(1, result);
    }
    response.push_uint64(2, revision.0);
    Ok(response)
}
