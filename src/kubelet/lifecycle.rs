//! What is done when a container is to end, as its shim is told.

use std::net::IpAddr;

use super::ports;
use super::shim::files::{Hook, HttpGet, StopMethod};
use crate::api::v1::{AssignedPort, Container, HttpGetAction, lifecycle_handler, stop_method};

/// How a container comes to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ending {
    /// What is done before it is asked to end.
    pub(crate) pre_stop: Option<Hook>,
    /// How it is asked to end, unless as the system does it.
    pub(crate) stop: Option<StopMethod>,
}

/// As the container's spec says it, with the ports that it really has; `host_ip` is its pod's address.
///
/// # Errors
/// A sentence: it names a port that the container doesn't have.
pub(crate) fn ending(container: &Container, assigned: &[AssignedPort], host_ip: IpAddr) -> Result<Ending, String> {
    let Some(lifecycle) = &container.lifecycle else { return Ok(Ending::default()) };
    let get = |action: &HttpGetAction| -> Result<HttpGet, String> {
        let port = ports::number_of(&action.port, &container.name, assigned)
            .ok_or_else(|| format!("the container has no TCP port {:?}, which its lifecycle names", action.port))?;
        let host = if action.host.is_empty() { host_ip.to_string() } else { action.host.clone() };
        Ok(HttpGet { host, port, path: action.path.clone() })
    };
    let pre_stop = match lifecycle.pre_stop.as_ref().and_then(|pre_stop| pre_stop.handler.as_ref()) {
        None => None,
        Some(lifecycle_handler::Handler::Exec(action)) => Some(Hook::Command(action.command.clone())),
        Some(lifecycle_handler::Handler::HttpGet(action)) => Some(Hook::Http(get(action)?)),
    };
    let stop = match lifecycle.stop.as_ref().and_then(|stop| stop.method.as_ref()) {
        None => None,
        Some(stop_method::Method::Signal(signal)) => Some(StopMethod::Signal(signal.clone())),
        Some(stop_method::Method::CtrlBreak(_)) => Some(StopMethod::Break),
        Some(stop_method::Method::Command(action)) => Some(StopMethod::Command(action.command.clone())),
        Some(stop_method::Method::Http(action)) => Some(StopMethod::Http(get(action)?)),
    };
    Ok(Ending { pre_stop, stop })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::api::v1::{Lifecycle, LifecycleHandler, StopMethod as Stop};

    fn get(port: &str, host: &str) -> HttpGetAction {
        HttpGetAction { path: "/stop".into(), port: port.into(), host: host.into(), scheme: "HTTP".into() }
    }

    #[test]
    fn requests_go_to_the_ports_that_the_container_really_has() {
        let handler = Some(lifecycle_handler::Handler::HttpGet(get("admin", "")));
        let method = Some(stop_method::Method::Http(get("", "db.local")));
        let lifecycle = Some(Lifecycle { pre_stop: Some(LifecycleHandler { handler }), stop: Some(Stop { method }) });
        let container = Container { name: "main".into(), lifecycle, ..Container::default() };
        let port = |container: &str, name: &str, port| AssignedPort {
            container: container.into(),
            name: name.into(),
            port,
            ..AssignedPort::default()
        };
        let assigned = [port("side", "admin", 1), port("main", "web", 20_001), port("main", "admin", 20_002)];
        let host_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let expected = Ending {
            pre_stop: Some(Hook::Http(HttpGet { host: "127.0.0.1".into(), port: 20_002, path: "/stop".into() })),
            stop: Some(StopMethod::Http(HttpGet { host: "db.local".into(), port: 20_001, path: "/stop".into() })),
        };
        assert_eq!(ending(&container, &assigned, host_ip), Ok(expected));
        assert_eq!(
            ending(&container, &assigned[..2], host_ip),
            Err("the container has no TCP port \"admin\", which its lifecycle names".to_owned())
        );
    }
}
