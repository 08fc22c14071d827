//! What must be so when everything has come to rest: of one pod, by its journal, its status, all statuses that it ever had, and its log.

use std::collections::BTreeSet;

use bluebird::api::v1::{ContainerStatus, LogsRequest, Pod, container_state::State};
use bluebird::client::Client;

use crate::actor::Actor;
use crate::history::History;

/// What a pod's process wrote down of its own runs.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) starts: Vec<i32>,
    pub(crate) ends: Vec<i32>,
    pub(crate) doubles: usize,
}

impl Journal {
    pub(crate) fn of(actor: &Actor) -> Journal {
        let text = std::fs::read_to_string(&actor.journal).unwrap_or_default();
        let mut journal = Journal::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("start", pid)) => journal.starts.push(pid.parse().expect("testapp writes numbers")),
                Some(("exit", code)) => journal.ends.push(code.parse().expect("testapp writes numbers")),
                _ if line == "double" => journal.doubles += 1,
                _ => panic!("{} says {line:?}", actor.journal.display()),
            }
        }
        journal
    }
}

fn main_of(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.first()
}

/// Whether a pod has done all that its part asks for, as its status tells.
pub(crate) fn is_at_rest(actor: &Actor, pod: &Pod) -> bool {
    let Some(main) = main_of(pod) else { return false };
    let state = main.state.as_ref().and_then(|state| state.state.as_ref());
    let is_last = main.restart_count as usize + 1 >= actor.starts();
    match state {
        Some(State::Running(_)) => actor.stays() && is_last,
        Some(State::Terminated(_)) => true,
        _ => false,
    }
}

/// A pod that is there: each of its runs began once, and ended as is told.
pub(crate) fn check_runs(actor: &Actor, pod: &Pod, history: &History) -> Result<(), String> {
    let journal = Journal::of(actor);
    let wrong = |what: &str| Err(format!("{what}: {actor:?}\n{journal:?}\n{:?}", pod.status));
    if journal.doubles > 0 {
        return wrong("two runs at once");
    }
    if journal.starts.len() != actor.starts() {
        return wrong("a run began twice, or never");
    }
    if journal.ends != actor.ends() {
        return wrong("the process ended in another way than it should have");
    }
    let Some(main) = main_of(pod) else { return wrong("there is no status") };
    if main.restart_count as usize + 1 != actor.starts() {
        return wrong("the restarts are not counted right");
    }
    let last_told = match main.state.as_ref().and_then(|state| state.state.as_ref()) {
        Some(State::Terminated(end)) => Some(end.exit_code),
        Some(State::Running(running)) if running.pid != i64::from(*journal.starts.last().unwrap_or(&0)) => {
            return wrong("the process id is another one's");
        }
        _ => main.last_termination.as_ref().map(|end| end.exit_code),
    };
    if last_told != journal.ends.last().copied() {
        return wrong("an exit code is lost");
    }
    // Statuses that follow each other quickly may be summed up, but none may tell anything that was not so.
    let ends: BTreeSet<_> = (0..).zip(&journal.ends).map(|(run, code)| (run, *code)).collect();
    match history.of(&actor.uid).iter().find(|(run, code, reason)| !ends.contains(&(*run, *code)) || reason == "Lost") {
        Some(false_end) => wrong(&format!("an end was told that never was: {false_end:?}")),
        None => Ok(()),
    }
}

/// A pod that was deleted: whatever of it began, began once.
pub(crate) fn check_remains(actor: &Actor) -> Result<(), String> {
    let journal = Journal::of(actor);
    let is_right = journal.doubles == 0 && journal.starts.len() <= actor.starts() && actor.ends().starts_with(&journal.ends);
    if is_right { Ok(()) } else { Err(format!("a run of a pod that is gone began twice: {actor:?}\n{journal:?}")) }
}

/// What its latest run wrote, and the one before, as far as they are kept. Gives the number of lines.
pub(crate) async fn check_log(actor: &Actor, client: &Client) -> Result<u64, String> {
    let expected: String = (1..=actor.lines).map(|number| format!("line {number}\n")).collect();
    let mut lines = 0;
    for previous in [false, true] {
        if previous && actor.starts() < 2 {
            continue;
        }
        let request = LogsRequest { pod: actor.name.clone(), previous, ..Default::default() };
        let log = read(client, request).await.map_err(|error| format!("the log of {actor:?} can't be read: {error}"))?;
        // The process that it left says that it is there, after all lines.
        let log = log.split("detached ").next().unwrap_or_default();
        if log != expected {
            let at = log.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let (got, wanted) = (log.len(), expected.len());
            return Err(format!("lines are lost: {actor:?}, previous: {previous}: {got} bytes of {wanted}, the same up to {at}"));
        }
        lines += actor.lines;
    }
    Ok(lines)
}

/// A kubelet that was just started may have no session yet.
async fn read(client: &Client, request: LogsRequest) -> bluebird::error::Result<String> {
    loop {
        match read_now(client, request.clone()).await {
            Err(error) if error.is_unavailable() => tokio::time::sleep(LOOK_AGAIN).await,
            answer => return answer,
        }
    }
}

const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(20);

async fn read_now(client: &Client, request: LogsRequest) -> bluebird::error::Result<String> {
    let mut pieces = client.logs(request).await?;
    let mut log = Vec::new();
    while let Some(piece) = pieces.next().await? {
        log.extend(piece.data);
    }
    Ok(String::from_utf8_lossy(&log).into_owned())
}
