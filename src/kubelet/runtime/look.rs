//! What there is of a pod: its folder, its files, and whether a shim lives.

use std::fs::{File, TryLockError};
use std::io;
use std::time::Duration;

use crate::kubelet::os::{Host, Os};
use crate::kubelet::shim::files::{ABOUT_TO_START, ContainerState, Desired, PodFolder, Stage, State};

/// What there is of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    /// A shim holds the pod's lock.
    pub(crate) is_guarded: bool,
    /// What the shim was asked for. Nothing if that can't be read any more.
    pub(crate) desired: Desired,
    /// What it has answered. Nothing if that can't be read any more.
    pub(crate) state: State,
    /// What is damaged, or is not there although it should be.
    pub(crate) damage: Damage,
}

/// What somebody has done to a pod's folder behind the kubelet's back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The folder is gone, or the bell of a shim that lives: nobody can tell it anything.
    pub(crate) is_out_of_reach: bool,
    /// What a shim that lives was asked for can't be read.
    pub(crate) is_desired_lost: bool,
    /// What the shim has answered can't be read; or it has not answered yet.
    pub(crate) is_state_lost: bool,
}

impl Found {
    /// Whether this run of a container runs now, and is not only about to.
    pub(crate) fn runs(&self, container: &str, attempt: u32) -> bool {
        let runs =
            |state: &ContainerState| state.attempt == attempt && matches!(state.stage, Stage::Running { pid, .. } if pid != ABOUT_TO_START);
        self.is_guarded && self.state.get(container).is_some_and(runs)
    }
}

/// Looks at a pod; `None` when there is no folder.
///
/// # Errors
/// When it can't be told: the folder can't be reached.
pub(super) fn look(folder: &PodFolder) -> io::Result<Option<Found>> {
    let about = |error: io::Error| io::Error::new(error.kind(), format!("{} can't be looked at: {error}", folder.path().display()));
    if !folder.path().try_exists().map_err(about)? {
        return Ok(None);
    }
    // The lock first: when it is free, the state is the last one.
    let is_guarded = is_locked(folder).map_err(about)?;
    let (desired, state) = (whole(folder.read_desired())?, whole(folder.read_state())?);
    let damage = Damage {
        is_out_of_reach: is_guarded && !folder.bell().try_exists().map_err(about)?,
        is_desired_lost: is_guarded && desired.is_none(),
        is_state_lost: state.is_none(),
    };
    Ok(Some(Found { is_guarded, desired: desired.unwrap_or_default(), state: state.unwrap_or_default(), damage }))
}

/// What was read; `None` also when it is damaged. A machine that lost its power may leave a file empty that was written shortly before.
pub(super) fn whole<T>(read: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory) => {
            tracing::warn!(%error, "a damaged file is taken for none");
            Ok(None)
        }
        other => other,
    }
}

/// The same, for whom nothing is as good as an empty file.
pub(crate) fn or_nothing<T: Default>(read: io::Result<Option<T>>) -> io::Result<T> {
    whole(read).map(Option::unwrap_or_default)
}

/// Waits until the shim of a pod is gone, whoever started it.
pub(crate) async fn shim_ended(folder: PodFolder) -> io::Result<()> {
    Host::silence(&folder.bell()).await?;
    // The kernel closes the files of a dying process in an order of its own: the lock may be free a moment after the bell is silent.
    for delay in SETTLING {
        let looked = folder.clone();
        let is_locked = tokio::task::spawn_blocking(move || is_locked(&looked)).await.map_err(io::Error::other)?;
        if !is_locked? {
            break;
        }
        tokio::time::sleep(delay).await;
    }
    Ok(())
}

const SETTLING: [Duration; 4] = [Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(100), Duration::from_secs(1)];

/// Whether somebody else has the lock of a pod.
pub(crate) fn is_locked(folder: &PodFolder) -> io::Result<bool> {
    let lock = match File::open(folder.lock()) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Shared, so that two who look don't take each other for a shim.
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
