use super::faults::{Faults, Path};
use super::probe::check_exec;
use crate::api::v1::{Lifecycle, lifecycle_handler, stop_method};

/// What a container can be asked to end by. On any Unix they mean the same.
const SIGNALS: [&str; 7] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGKILL"];

pub(super) fn check(path: &Path<'_>, lifecycle: &Lifecycle, faults: &mut Faults) {
    if let Some(pre_stop) = &lifecycle.pre_stop {
        let path = path.field("pre_stop");
        match &pre_stop.handler {
            None => faults.add(&path, "must say what to do: exec"),
            Some(lifecycle_handler::Handler::Exec(action)) => check_exec(&path.field("exec"), action, faults),
        }
    }
    if let Some(stop) = &lifecycle.stop {
        let path = path.field("stop");
        match &stop.method {
            None => faults.add(&path, "must say how: signal or command"),
            Some(stop_method::Method::Command(action)) => check_exec(&path.field("command"), action, faults),
            Some(stop_method::Method::Signal(signal)) if !SIGNALS.contains(&signal.as_str()) => {
                faults.add(&path.field("signal"), format!("{signal:?} is not known; there are {}", SIGNALS.join(", ")));
            }
            Some(stop_method::Method::Signal(_)) => {}
        }
    }
}
