//! What is done when a container is to end, as its shim is told.

use super::shim::files::StopMethod;
use crate::api::v1::{Container, lifecycle_handler, stop_method};

/// The command that is run before it is asked to end.
pub(crate) fn pre_stop(container: &Container) -> Option<Vec<String>> {
    match container.lifecycle.as_ref()?.pre_stop.as_ref()?.handler.as_ref()? {
        lifecycle_handler::Handler::Exec(action) => Some(action.command.clone()),
    }
}

/// How it is asked to end, unless as the system does it.
pub(crate) fn stop(container: &Container) -> Option<StopMethod> {
    match container.lifecycle.as_ref()?.stop.as_ref()?.method.as_ref()? {
        stop_method::Method::Signal(signal) => Some(StopMethod::Signal(signal.clone())),
        stop_method::Method::Command(action) => Some(StopMethod::Command(action.command.clone())),
    }
}
