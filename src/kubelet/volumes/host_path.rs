//! Files and folders of the node. One may be on a file system that is dead and never answers, not even to a kill: so each is looked at by a thread of
//! its own, and nobody waits long for that.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::v1::{HostPathType, HostPathVolumeSource};
use crate::kubelet::os::{Host, Os};

/// How long whoever asks waits for an answer, once for each path: as a rule it is there at once, and other pods wait meanwhile.
const PATIENCE: Duration = Duration::from_millis(50);
/// A path that has not answered for so long is told to be at fault.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many paths may be looked at at the same time; for more there is an error.
const MOST: usize = 64;
/// An answer that nobody asked for for so long is too old: longer than a container waits between two tries to start it.
const TOO_OLD: Duration = Duration::from_mins(6);
/// Of a thread that makes a few system calls.
const STACK: usize = 128 * 1024;

type Answer = Result<(), String>;

/// Those that are looked at now, or whose answers nobody has heard yet.
static LOOKS: Mutex<Looks> = Mutex::new(Looks(BTreeMap::new()));

/// Makes sure that the path is what it must be, or says why it isn't, or that this isn't known yet.
pub(super) fn check(host: &HostPathVolumeSource) -> Answer {
    let (path, r#type) = (PathBuf::from(&host.path), host.r#type());
    if !path.is_absolute() {
        return Err(format!("{} is no absolute path on this system", path.display()));
    }
    let looked = path.clone();
    LOOKS.lock().unwrap_or_else(PoisonError::into_inner).ask(path, r#type, move || look(&looked, r#type))
}

/// By what is looked at, and as what.
struct Looks(BTreeMap<(PathBuf, HostPathType), Look>);

struct Look {
    since: Instant,
    answers: Receiver<Answer>,
    /// When it came.
    answer: Option<(Instant, Answer)>,
}

impl Looks {
    fn ask(&mut self, path: PathBuf, r#type: HostPathType, look: impl FnOnce() -> Answer + Send + 'static) -> Answer {
        self.0.values_mut().for_each(|look| look.listen(Duration::ZERO));
        self.0.retain(|_, look| look.answer.as_ref().is_none_or(|(came, _)| came.elapsed() < TOO_OLD));
        let key = (path, r#type);
        let count = self.0.len();
        let known = match self.0.entry(key.clone()) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if count >= MOST => {
                return Err(format!("{} is not looked at, since {MOST} other paths don't answer", key.0.display()));
            }
            std::collections::btree_map::Entry::Vacant(new) => {
                let known = new.insert(Look::begin(look).map_err(|error| format!("{} can't be looked at: {error}", key.0.display()))?);
                known.listen(PATIENCE);
                known
            }
        };
        if known.answer.is_none() {
            return Err(match known.since.elapsed() < DEADLINE {
                true => format!("{} has not answered yet", key.0.display()),
                false => format!("{} did not answer within {} s", key.0.display(), DEADLINE.as_secs()),
            });
        }
        self.0.remove(&key).and_then(|known| known.answer).map_or(Ok(()), |(_, answer)| answer)
    }
}

impl Look {
    fn begin(look: impl FnOnce() -> Answer + Send + 'static) -> io::Result<Self> {
        let (told, answers) = mpsc::channel();
        std::thread::Builder::new().name("host path".to_owned()).stack_size(STACK).spawn(move || {
            // It may outlive everything else of this process, and then must hold nothing that the next kubelet needs.
            Host::let_go_of_files();
            let _nobody_asks_any_more = told.send(look());
        })?;
        Ok(Self { since: Instant::now(), answers, answer: None })
    }

    fn listen(&mut self, patience: Duration) {
        if self.answer.is_some() {
            return;
        }
        self.answer = match self.answers.recv_timeout(patience) {
            Ok(answer) => Some((Instant::now(), answer)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some((Instant::now(), Err("it can't be looked at".to_owned()))),
        };
    }
}

fn look(path: &Path, r#type: HostPathType) -> Answer {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return make(path, r#type),
        Err(error) => return Err(format!("{} can't be looked at: {error}", path.display())),
    };
    match r#type {
        HostPathType::Directory | HostPathType::DirectoryOrCreate if !found.is_dir() => Err(format!("{} is no folder", path.display())),
        HostPathType::File | HostPathType::FileOrCreate if !found.is_file() => Err(format!("{} is no file", path.display())),
        _ => Ok(()),
    }
}

fn make(path: &Path, r#type: HostPathType) -> Answer {
    let made = match r#type {
        HostPathType::DirectoryOrCreate => std::fs::create_dir_all(path),
        HostPathType::FileOrCreate => File::create_new(path).map(drop),
        HostPathType::Unspecified | HostPathType::Directory | HostPathType::File => {
            return Err(format!("there is nothing at {} on this node", path.display()));
        }
    };
    made.map_err(|error| format!("{} can't be made: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_answer_has_one_thread_and_its_answer_is_heard_when_it_comes() {
        let mut looks = Looks(BTreeMap::new());
        let (answer, answers) = mpsc::channel();
        let nfs = || PathBuf::from("/nfs");
        let ask = |looks: &mut Looks| looks.ask(nfs(), HostPathType::Directory, || panic!("looked at twice"));
        let first = looks.ask(nfs(), HostPathType::Directory, move || answers.recv().unwrap());
        assert_eq!(first, Err("/nfs has not answered yet".to_owned()));
        assert_eq!(ask(&mut looks), first);
        // Other paths answer at once.
        assert_eq!(looks.ask("/other".into(), HostPathType::Directory, || Ok(())), Ok(()));
        let known = looks.0.get_mut(&(nfs(), HostPathType::Directory)).unwrap();
        known.since -= DEADLINE;
        assert_eq!(ask(&mut looks), Err("/nfs did not answer within 5 s".to_owned()));
        answer.send(Err("it is no folder".to_owned())).unwrap();
        looks.0.get_mut(&(nfs(), HostPathType::Directory)).unwrap().listen(Duration::from_secs(20));
        assert_eq!(ask(&mut looks), Err("it is no folder".to_owned()));
        assert_eq!(looks.ask(nfs(), HostPathType::Directory, || Ok(())), Ok(()), "it is looked at anew");
        assert!(looks.0.is_empty());
    }

    #[test]
    fn so_many_paths_do_not_answer_that_no_more_are_looked_at_until_some_do() {
        let mut looks = Looks(BTreeMap::new());
        let mut stuck = Vec::new();
        for number in 0..MOST {
            let (answer, answers) = mpsc::channel();
            let look = Look::begin(move || answers.recv().unwrap()).unwrap();
            looks.0.insert((number.to_string().into(), HostPathType::File), look);
            stuck.push(answer);
        }
        let refused = looks.ask("/one/more".into(), HostPathType::File, || Ok(())).unwrap_err();
        assert_eq!(refused, "/one/more is not looked at, since 64 other paths don't answer");
        stuck[0].send(Ok(())).unwrap();
        let first = looks.0.get_mut(&("0".into(), HostPathType::File)).unwrap();
        first.listen(Duration::from_secs(20));
        first.answer.as_mut().unwrap().0 -= TOO_OLD;
        assert_eq!(looks.ask("/one/more".into(), HostPathType::File, || Ok(())), Ok(()));
    }
}
