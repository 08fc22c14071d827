//! What clients asked of a group of objects and what they were told, in the order in which it happened.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use todc_utils::linearizability::WGLChecker;
use todc_utils::{Action, History};

use crate::model::{self, Answered, Asked, Held, Operation, Value};

/// The operations on one group. The group begins empty and nobody else touches it, so its history can be judged by itself.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    log: Mutex<Log>,
}

#[derive(Clone, Debug, Default)]
struct Log {
    operations: Vec<(Asked, Option<Answered>)>,
    order: Vec<Moment>,
    values: Value,
    /// Writes of which nobody knows whether they were done.
    unknown: usize,
}

/// Something that happened to the operation of this number.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Call(usize),
    Return(usize),
}

impl Group {
    pub(crate) fn new(name: String) -> Self {
        Self { name, log: Mutex::default() }
    }

    /// A value that nobody has written yet.
    pub(crate) fn new_value(&self) -> Value {
        let mut log = self.log();
        log.values += 1;
        log.values
    }

    /// An operation begins. Returns its number.
    pub(crate) fn call(&self, asked: Asked) -> usize {
        let mut log = self.log();
        log.operations.push((asked, None));
        let number = log.operations.len() - 1;
        log.order.push(Moment::Call(number));
        number
    }

    /// An operation ends with an answer. One that never does, stays open.
    pub(crate) fn answered(&self, number: usize, answered: Answered) {
        let mut log = self.log();
        if answered == (Answered::Unknown { revision: 0 }) {
            log.unknown += usize::from(log.operations[number].0.writes());
            return;
        }
        log.operations[number].1 = Some(answered);
        log.order.push(Moment::Return(number));
    }

    /// How many operations there are, and how many writes with unknown outcome.
    pub(crate) fn len(&self) -> (usize, usize) {
        let log = self.log();
        (log.operations.len(), log.unknown)
    }

    /// Every write that was acknowledged, and at which revision.
    pub(crate) fn acknowledged(&self) -> Vec<(Asked, u64)> {
        let log = self.log();
        let written = log.operations.iter().filter_map(|(asked, answered)| match answered {
            Some(Answered::Written(revision)) => Some((asked.clone(), *revision)),
            _ => None,
        });
        written.collect()
    }

    /// Looks for an order of the operations in which each could have been answered as it was.
    ///
    /// # Errors
    /// A sentence, when there is none.
    pub(crate) fn check(&self) -> Result<(), String> {
        let log = self.log().clone();
        let actions = log.actions().map_err(|fault| format!("group {}: {fault}", self.name))?;
        if actions.is_empty() || WGLChecker::<model::Group>::is_linearizable(History::from_actions(actions)) {
            return Ok(());
        }
        Err(format!("the history of group {} is not linearizable:\n{}", self.name, log.describe()))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no panic while held")
    }
}

impl Log {
    /// The history as the checker wants it. Open reads are left out, since they say nothing; open writes end with the history.
    fn actions(&self) -> Result<Vec<(usize, Action<Operation>)>, String> {
        let seen = self.seen()?;
        let of = |number: usize| {
            let (asked, answered) = &self.operations[number];
            let revision = asked.value().and_then(|value| seen.get(&value)).copied().unwrap_or(0);
            Operation { asked: asked.clone(), answered: answered.clone().unwrap_or(Answered::Unknown { revision }) }
        };
        let counts = |number: usize| self.operations[number].1.is_some() || self.operations[number].0.writes();
        let mut actions = Vec::new();
        for moment in &self.order {
            match *moment {
                Moment::Call(number) if counts(number) => actions.push((number, Action::Call(of(number)))),
                Moment::Return(number) => actions.push((number, Action::Response(of(number)))),
                Moment::Call(_) => {}
            }
        }
        let open = (0..self.operations.len()).filter(|number| self.operations[*number].1.is_none() && counts(*number));
        actions.extend(open.map(|number| (number, Action::Response(of(number)))));
        Ok(actions)
    }

    /// At which revision each value was seen, or said to be written.
    fn seen(&self) -> Result<BTreeMap<Value, u64>, String> {
        let mut seen = BTreeMap::new();
        for (asked, answered) in &self.operations {
            let held: Vec<Held> = match answered {
                Some(Answered::Found(held)) => vec![*held],
                Some(Answered::Listed { objects, .. }) => objects.iter().flatten().copied().collect(),
                Some(Answered::Written(revision)) => asked.value().map(|value| Held { value, revision: *revision }).into_iter().collect(),
                _ => Vec::new(),
            };
            for Held { value, revision } in held {
                let before = *seen.entry(value).or_insert(revision);
                if before != revision {
                    return Err(format!("what {value} wrote has the revisions {before} and {revision}"));
                }
            }
        }
        Ok(seen)
    }

    fn describe(&self) -> String {
        let line = |moment: &Moment| match *moment {
            Moment::Call(number) => format!("{number:>4} asks {:?}\n", self.operations[number].0),
            Moment::Return(number) => format!("{number:>4} is told {:?}\n", self.operations[number].1),
        };
        self.order.iter().map(line).collect()
    }
}

impl Asked {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Asked::Get { .. } | Asked::List)
    }

    fn value(&self) -> Option<Value> {
        match self {
            Asked::Create { value, .. } | Asked::Update { value, .. } | Asked::Apply { value, .. } => Some(*value),
            Asked::Delete { .. } | Asked::Get { .. } | Asked::List => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(moments: impl FnOnce(&Group)) -> Group {
        let group = Group::new("test".to_owned());
        moments(&group);
        group
    }

    fn done(group: &Group, asked: Asked, answered: Answered) {
        let number = group.call(asked);
        group.answered(number, answered);
    }

    const CREATE: Asked = Asked::Create { key: 0, value: 1 };
    const UPDATE: Asked = Asked::Update { key: 0, value: 2, expected: 0 };
    const GET: Asked = Asked::Get { key: 0 };
    const OLD: Answered = Answered::Found(Held { value: 1, revision: 1 });
    const NEW: Answered = Answered::Found(Held { value: 2, revision: 2 });

    fn is_linearizable(moments: impl FnOnce(&Group)) -> bool {
        group(moments).check().is_ok()
    }

    #[test]
    fn a_stale_read_is_found() {
        let read = |answer| {
            is_linearizable(|group| {
                done(group, CREATE, Answered::Written(1));
                done(group, UPDATE, Answered::Written(2));
                done(group, GET, answer);
            })
        };
        assert!(read(NEW));
        assert!(!read(OLD));
    }

    #[test]
    fn a_read_beside_a_write_may_see_either_but_never_the_old_after_the_new() {
        let reads = |first, second| {
            is_linearizable(|group| {
                done(group, CREATE, Answered::Written(1));
                let write = group.call(UPDATE);
                done(group, GET, first);
                done(group, GET, second);
                group.answered(write, Answered::Written(2));
            })
        };
        assert!(reads(OLD, OLD) && reads(OLD, NEW) && reads(NEW, NEW));
        assert!(!reads(NEW, OLD));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(!is_linearizable(|group| {
            done(group, CREATE, Answered::Written(1));
            done(group, GET, Answered::Missing);
        }));
        assert!(!is_linearizable(|group| {
            done(group, CREATE, Answered::Written(1));
            done(group, UPDATE, Answered::Written(2));
            done(group, Asked::List, Answered::Listed { objects: [Some(Held { value: 1, revision: 1 }), None, None], revision: 2 });
        }));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_be_done_late_or_never_but_not_undone() {
        let history = |answers: [Answered; 2]| {
            is_linearizable(|group| {
                done(group, CREATE, Answered::Written(1));
                let open = group.call(UPDATE);
                group.answered(open, Answered::Unknown { revision: 0 });
                answers.into_iter().for_each(|answer| done(group, GET, answer));
            })
        };
        assert!(history([OLD, OLD]) && history([OLD, NEW]) && history([NEW, NEW]));
        assert!(!history([NEW, OLD]));
    }

    #[test]
    fn a_list_that_mixes_two_moments_is_found() {
        let list = |objects| {
            is_linearizable(|group| {
                done(group, Asked::Apply { keys: [0, 1], value: 1 }, Answered::Written(1));
                let number = group.call(Asked::List);
                done(group, Asked::Apply { keys: [0, 1], value: 2 }, Answered::Written(2));
                group.answered(number, Answered::Listed { objects, revision: 2 });
            })
        };
        let held = |value| Some(Held { value, revision: value });
        assert!(list([held(2), held(2), None]));
        assert!(!list([held(1), held(2), None]));
    }

    #[test]
    fn revisions_out_of_order_and_refusals_without_reason_are_found() {
        assert!(!is_linearizable(|group| {
            done(group, CREATE, Answered::Written(5));
            done(group, UPDATE, Answered::Written(4));
        }));
        assert!(!is_linearizable(|group| done(group, CREATE, Answered::Exists)));
        assert!(!is_linearizable(|group| {
            done(group, CREATE, Answered::Written(1));
            done(group, Asked::Update { key: 0, value: 2, expected: 1 }, Answered::Changed);
        }));
    }
}
