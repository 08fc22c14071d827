//! Starts others: children, their children, and some that nobody is the parent of any more.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::{Result, say, system, told};

/// Starts a process that is nobody's child, is in no group of its starter's, ignores requests to end, and can be seen to live: it listens. It says
/// where.
pub(crate) fn detach() -> Result {
    let listener = told(TcpListener::bind("127.0.0.1:0"), "a port")?;
    let address = told(listener.local_addr(), "a port")?;
    let mut between = told(this_program(), "this program")?;
    between.arg("hold").env(BETWEEN, "1").env(CALL, address.to_string());
    system::leave_everything(&mut between);
    // The one between ends, and leaves its child behind, which calls when it has said what it has to say.
    let mut between = told(between.spawn(), "the process between")?;
    told(between.wait(), "the process between")?;
    told(listener.accept(), "the detached process").map(drop)
}

/// In the environment of the process that only starts the one that stays.
const BETWEEN: &str = "TESTAPP_BETWEEN";
/// Whom the one that stays calls when it is there.
const CALL: &str = "TESTAPP_CALL";

/// What [`detach`] starts.
pub(crate) fn hold() -> Result {
    if std::env::var_os(BETWEEN).is_some() {
        let mut last = told(this_program(), "this program")?;
        last.arg("hold").env_remove(BETWEEN);
        system::leave_everything(&mut last);
        told(last.spawn(), "the detached process").map(drop)?;
        return Ok(());
    }
    system::ignore_requests_to_end()?;
    let listener = told(TcpListener::bind("127.0.0.1:0"), "a port")?;
    let address = told(listener.local_addr(), "a port")?;
    say::line(&format!("detached {} {address}", std::process::id()))?;
    let call = std::env::var(CALL).map_err(|error| error.to_string())?;
    told(TcpStream::connect(call), "who started this").map(drop)?;
    loop {
        // Whoever connects has seen what he wanted.
        drop(listener.accept());
    }
}

/// A tree of processes that stay: `width` children, each with such a tree one level lower.
pub(crate) fn tree(depth: u32, width: u32) -> Result {
    for _ in 0..if depth == 0 { 0 } else { width } {
        let mut child = told(this_program(), "this program")?;
        child.args(["tree", &(depth - 1).to_string(), &width.to_string(), "forever"]);
        told(child.spawn(), "a child").map(drop)?;
    }
    Ok(())
}

/// Starts so many children at once, and says how many could be started. They end with it.
pub(crate) fn spawn(count: usize) -> Result {
    let mut children: Vec<Child> = Vec::new();
    let mut refusal = None;
    while children.len() < count && refusal.is_none() {
        match this_program().and_then(|mut child| child.arg("forever").spawn()) {
            Ok(child) => children.push(child),
            Err(error) => refusal = Some(error),
        }
    }
    let why = refusal.map_or_else(String::new, |error| format!(": {error}"));
    say::line(&format!("{} of {count} started{why}", children.len()))?;
    for mut child in children {
        told(child.kill().and_then(|()| child.wait()), "a child").map(drop)?;
    }
    Ok(())
}

fn this_program() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.stdin(Stdio::null());
    Ok(command)
}
