//! The kubelet as a service: the service control manager starts it, is told how far it is, and tells it when to end. Whether it was started so is found by
//! trying to talk to the manager. What it has started doesn't end with it: shims have consoles of their own, and the manager ends no more than the service.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use windows_service::service::{ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle};
use windows_service::{define_windows_service, service_dispatcher};
use windows_sys::Win32::Foundation::ERROR_FAILED_SERVICE_CONTROLLER_CONNECT;

use super::service_log;

/// The manager knows which service it started, so it doesn't look at this.
const NAME: &str = "bluebird-kubelet";
/// How long a kubelet may take to end: its own stages and what its threads still do, which it waits for only so long. The manager is told, but kills nobody.
const ENDING: Duration = Duration::from_secs(20);

/// What the service is to run, and where it prints to: the manager's call brings nothing along.
static WORK: Mutex<Option<Work>> = Mutex::new(None);
static STATUS: OnceLock<ServiceStatusHandle> = OnceLock::new();
/// By which control it was told to end.
static CONTROL: OnceLock<watch::Sender<Option<&'static str>>> = OnceLock::new();

struct Work {
    log: PathBuf,
    /// Whether it ended well.
    run: Box<dyn FnOnce() -> bool + Send>,
}

fn take_work() -> Option<Work> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn control() -> &'static watch::Sender<Option<&'static str>> {
    CONTROL.get_or_init(|| watch::Sender::new(None))
}

/// Runs a program as a service if it was started as one, and else as it is.
pub(super) fn run<E: From<io::Error> + Send + 'static>(log: &Path, run: impl FnOnce() -> Result<(), E> + Send + 'static) -> Result<(), E> {
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    let run = Box::new(move || {
        let result = run();
        let is_well = result.is_ok();
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        is_well
    });
    *WORK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Work { log: log.to_owned(), run });
    match service_dispatcher::start(NAME, main_of_service) {
        Ok(()) => {}
        Err(error) if was_not_started_by_the_manager(&error) => {
            if let Some(work) = take_work() {
                (work.run)();
            }
        }
        Err(error) => return Err(as_io(error).into()),
    }
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    outcome.unwrap_or_else(|| Err(io::Error::other("the service has ended without having begun").into()))
}

fn was_not_started_by_the_manager(error: &windows_service::Error) -> bool {
    let connects_not = ERROR_FAILED_SERVICE_CONTROLLER_CONNECT.cast_signed();
    matches!(error, windows_service::Error::Winapi(error) if error.raw_os_error() == Some(connects_not))
}

define_windows_service!(main_of_service, serve);

/// Called by the manager, in a thread of its own.
fn serve(_: Vec<OsString>) {
    let Some(work) = take_work() else { return };
    if let Err(error) = service_log::begin(&work.log) {
        // Nobody can be told; but that is no reason not to run pods.
        tracing::error!(%error, log = %work.log.display(), "what this service prints is lost");
    }
    // Without captures: the crate frees the handler at the first request to end, and others may follow.
    let status = match service_control_handler::register(NAME, |control| handle(&control)) {
        Ok(status) => *STATUS.get_or_init(|| status),
        Err(error) => return tracing::error!(error = %as_io(error), "the service control manager can't be listened to"),
    };
    tell(status, ServiceState::Running, ServiceExitCode::NO_ERROR);
    let exit = if (work.run)() { ServiceExitCode::NO_ERROR } else { ServiceExitCode::ServiceSpecific(1) };
    tell(status, ServiceState::Stopped, exit);
}

fn handle(asked: &ServiceControl) -> ServiceControlHandlerResult {
    let name = match asked {
        ServiceControl::Stop => "the service control manager",
        ServiceControl::Shutdown | ServiceControl::Preshutdown => "the system's shutdown",
        ServiceControl::Interrogate => return ServiceControlHandlerResult::NoError,
        _ => return ServiceControlHandlerResult::NotImplemented,
    };
    if let Some(status) = STATUS.get() {
        tell(*status, ServiceState::StopPending, ServiceExitCode::NO_ERROR);
    }
    control().send_replace(Some(name));
    ServiceControlHandlerResult::NoError
}

fn tell(status: ServiceStatusHandle, state: ServiceState, exit_code: ServiceExitCode) {
    let is_running = state == ServiceState::Running;
    let requests = ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN | ServiceControlAccept::PRESHUTDOWN;
    let told = status.set_service_status(ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: if is_running { requests } else { ServiceControlAccept::empty() },
        exit_code,
        checkpoint: 0,
        wait_hint: if state == ServiceState::StopPending { ENDING } else { Duration::ZERO },
        process_id: None,
    });
    if let Err(error) = told {
        tracing::error!(error = %as_io(error), "the service control manager can't be told how far this service is");
    }
}

/// Waits until the manager tells this service to end; for ever where this is no service.
pub(super) async fn end_control() -> &'static str {
    let mut told = control().subscribe();
    loop {
        if let Some(name) = *told.borrow_and_update() {
            return name;
        }
        // The sender is never dropped.
        let _lives = told.changed().await;
    }
}

fn as_io(error: windows_service::Error) -> io::Error {
    match error {
        windows_service::Error::Winapi(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_started_by_nobody_as_a_service_is_merely_run() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("kubelet.log");
        let outcome: io::Result<()> = run(&log, || Err(io::Error::other("the program's own")));
        assert_eq!(outcome.unwrap_err().to_string(), "the program's own");
        assert!(!log.exists(), "what it prints goes where it went");
    }

    #[tokio::test]
    async fn every_request_to_end_a_service_ends_it_also_one_that_came_before_it_was_waited_for() {
        assert!(matches!(handle(&ServiceControl::Interrogate), ServiceControlHandlerResult::NoError));
        assert!(matches!(handle(&ServiceControl::Pause), ServiceControlHandlerResult::NotImplemented));
        assert_eq!(*control().borrow(), None);
        for (request, name) in [
            (ServiceControl::Stop, "the service control manager"),
            (ServiceControl::Shutdown, "the system's shutdown"),
            (ServiceControl::Preshutdown, "the system's shutdown"),
        ] {
            assert!(matches!(handle(&request), ServiceControlHandlerResult::NoError));
            assert_eq!(end_control().await, name);
        }
    }
}
