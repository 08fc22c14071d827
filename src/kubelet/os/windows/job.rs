//! Job objects: sets of processes that nothing leaves, and that end together.

use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, OwnedHandle};
use std::time::Duration;

use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::IO::{CreateIoCompletionPort, GetQueuedCompletionStatus, PostQueuedCompletionStatus};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, IsProcessInJob, JOBOBJECT_ASSOCIATE_COMPLETION_PORT,
    JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, JOBOBJECTINFOCLASS, JobObjectAssociateCompletionPortInformation, JobObjectBasicProcessIdList,
    JobObjectCpuRateControlInformation, JobObjectExtendedLimitInformation, QueryInformationJobObject, SetInformationJobObject,
    TerminateJobObject,
};
use windows_sys::Win32::System::Threading::INFINITE;

use super::{check, limits, owned};
use crate::kubelet::os::fence::Limits;

/// A job. When its last handle is closed, also because the process that held it has died, all processes in it are ended. None of them may
/// leave it.
#[derive(Debug)]
pub(crate) struct Job(OwnedHandle);

impl Job {
    /// An empty one without limits.
    pub(crate) fn new() -> io::Result<Self> {
        Self::within(&Limits::default())
    }

    /// An empty one, whose handle no other process inherits. What is in it is held within these limits, as far as the system does what it says.
    pub(crate) fn within(limits: &Limits) -> io::Result<Self> {
        // SAFETY: null pointers ask for the defaults: not inherited, no name.
        let job = Self(owned(unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) })?);
        job.set(JobObjectExtendedLimitInformation, &limits::of_job(limits))?;
        if let Some(rate) = limits.cpu_millis.and_then(limits::cpu_rate) {
            job.set(JobObjectCpuRateControlInformation, &rate)?;
        }
        Ok(job)
    }

    /// The most processor time that its processes get, in ten thousandths of all that the machine has.
    pub(crate) fn cpu_rate(&self) -> io::Result<u32> {
        let mut rate = JOBOBJECT_CPU_RATE_CONTROL_INFORMATION::default();
        let (class, bytes) = (JobObjectCpuRateControlInformation, size_of_val(&rate) as u32);
        // SAFETY: the buffer is as large as is said, and of the kind that belongs to the class.
        check(unsafe { QueryInformationJobObject(self.raw(), class, (&raw mut rate).cast(), bytes, std::ptr::null_mut()) })?;
        // SAFETY: all members of the union are numbers.
        Ok(unsafe { rate.Anonymous.CpuRate })
    }

    /// Puts a process into it. All that the process starts from then on is in it, too.
    pub(crate) fn assign(&self, process: BorrowedHandle<'_>) -> io::Result<()> {
        // SAFETY: both handles are open.
        check(unsafe { AssignProcessToJobObject(self.raw(), process.as_raw_handle()) })
    }

    /// Whether a process is in it.
    pub(crate) fn has(&self, process: BorrowedHandle<'_>) -> io::Result<bool> {
        let mut result = 0;
        // SAFETY: both handles are open, and the pointer is to a value of the right kind.
        check(unsafe { IsProcessInJob(process.as_raw_handle(), self.raw(), &raw mut result) })?;
        Ok(result != 0)
    }

    /// The living processes in it.
    pub(crate) fn members(&self) -> io::Result<Vec<u32>> {
        // Two counts of 32 bits, then the pids as wide as pointers; see JOBOBJECT_BASIC_PROCESS_ID_LIST.
        let head = 2 * size_of::<u32>() / size_of::<usize>();
        let mut list = vec![0_usize; head + FEW];
        loop {
            let bytes = u32::try_from(size_of_val(list.as_slice())).unwrap_or(u32::MAX);
            // SAFETY: the buffer is as large as is said, and as aligned as the structure has to be.
            let queried = unsafe {
                QueryInformationJobObject(self.raw(), JobObjectBasicProcessIdList, list.as_mut_ptr().cast(), bytes, std::ptr::null_mut())
            };
            match check(queried) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(ERROR_MORE_DATA.cast_signed()) => list.resize(list.len() * 2, 0),
                Err(error) => return Err(error),
            }
        }
        // SAFETY: the buffer begins with the two counts, and is as aligned as they have to be.
        let [_assigned, listed] = unsafe { list.as_ptr().cast::<[u32; 2]>().read() };
        Ok(list[head..].iter().take(listed as usize).filter_map(|pid| u32::try_from(*pid).ok()).collect())
    }

    /// Ends all processes in it at once, with this exit code.
    pub(crate) fn terminate(&self, code: u32) -> io::Result<()> {
        // SAFETY: the handle is open.
        check(unsafe { TerminateJobObject(self.raw(), code) })
    }

    /// The same, and waits until they are gone.
    pub(crate) async fn end(&self, code: u32) -> io::Result<()> {
        self.terminate(code)?;
        while !self.members()?.is_empty() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets what happens to its processes be told under this key. Only to one can it be told.
    pub(crate) fn tell(&self, news: &News, key: usize) -> io::Result<()> {
        let port = JOBOBJECT_ASSOCIATE_COMPLETION_PORT {
            CompletionKey: std::ptr::without_provenance_mut(key),
            CompletionPort: news.0.as_raw_handle(),
        };
        self.set(JobObjectAssociateCompletionPortInformation, &port)
    }

    fn set<T>(&self, class: JOBOBJECTINFOCLASS, value: &T) -> io::Result<()> {
        let bytes = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
        // SAFETY: the pointer is to a value of this size, of the kind that belongs to the class.
        check(unsafe { SetInformationJobObject(self.raw(), class, (&raw const *value).cast(), bytes) })
    }

    fn raw(&self) -> HANDLE {
        self.0.as_raw_handle()
    }
}

/// Between two looks at whether what was ended is gone.
const POLL: Duration = Duration::from_millis(2);
/// How many pids are asked for at first.
const FEW: usize = 62;

/// What jobs tell, in the order in which it happened.
#[derive(Debug)]
pub(crate) struct News(OwnedHandle);

/// One of them: a kind of message, and the key of the job that tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) message: u32,
    pub(crate) key: usize,
}

impl News {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: makes a new port, for no file.
        owned(unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, std::ptr::null_mut(), 0, 1) }).map(Self)
    }

    /// Waits for the next.
    pub(crate) fn wait(&self) -> io::Result<Told> {
        let (mut message, mut key, mut subject) = (0, 0, std::ptr::null_mut());
        // SAFETY: the pointers are to values of the right kinds.
        check(unsafe { GetQueuedCompletionStatus(self.0.as_raw_handle(), &raw mut message, &raw mut key, &raw mut subject, INFINITE) })?;
        Ok(Told { message, key })
    }

    /// Tells something as a job would.
    pub(crate) fn post(&self, told: Told) -> io::Result<()> {
        // SAFETY: the handle is open, and nobody looks behind the null pointer.
        check(unsafe { PostQueuedCompletionStatus(self.0.as_raw_handle(), told.message, told.key, std::ptr::null()) })
    }
}
