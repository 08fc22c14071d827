use super::faults::{Faults, Path};
use super::probe::{check_exec, check_http};
use crate::api::v1::{Container, Lifecycle, lifecycle_handler, stop_method};

/// What a container can be asked to end by. On any Unix they mean the same.
const SIGNALS: [&str; 7] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGKILL"];

pub(super) fn check(path: &Path<'_>, lifecycle: &Lifecycle, container: &Container, faults: &mut Faults) {
    if let Some(pre_stop) = &lifecycle.pre_stop {
        let path = path.field("pre_stop");
        match &pre_stop.handler {
            None => faults.add(&path, "must say what to do: exec or http_get"),
            Some(lifecycle_handler::Handler::Exec(action)) => check_exec(&path.field("exec"), action, faults),
            Some(lifecycle_handler::Handler::HttpGet(action)) => check_http(&path.field("http_get"), action, container, faults),
        }
    }
    if let Some(stop) = &lifecycle.stop {
        let path = path.field("stop");
        match &stop.method {
            None => faults.add(&path, "must say how: signal, command, http or ctrl_break"),
            Some(stop_method::Method::Command(action)) => check_exec(&path.field("command"), action, faults),
            Some(stop_method::Method::Http(action)) => check_http(&path.field("http"), action, container, faults),
            Some(stop_method::Method::CtrlBreak(is_so)) if !is_so => faults.add(&path.field("ctrl_break"), "must be true, or absent"),
            Some(stop_method::Method::Signal(signal)) if !SIGNALS.contains(&signal.as_str()) => {
                faults.add(&path.field("signal"), format!("{signal:?} is not known; there are {}", SIGNALS.join(", ")));
            }
            Some(stop_method::Method::Signal(_) | stop_method::Method::CtrlBreak(_)) => {}
        }
    }
}
