//! Serves what containers wrote, through tunnels that the apiserver asks for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::pods::Finished;
use super::root::Root;
use super::runtime::attempts;
use super::shim::files::PodFolder;
use super::shim::log_files::{LogFile, log_files};
use super::uid::PodUid;
use crate::api::v1::{LogsRequest, ObjectRefusal, OpenTunnel, Pod, TunnelRequest, open_tunnel, tunnel_request};
use crate::client::Client;

/// The most bytes in one piece, as the tunnel documents.
const PIECE: usize = 64 * 1024;
/// The most pieces that wait to be sent.
const PIECES: usize = 4;
/// How often the end of a log that somebody follows is looked at. Nothing is looked at while nobody does.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Serves logs out of the pods' folders.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    root: Arc<Root>,
    finished: Arc<Finished>,
}

/// Why a log can't be had, as the code of a gRPC status and a sentence.
type Refusal = (tonic::Code, String);

impl Logs {
    pub(crate) fn new(root: Arc<Root>, finished: Arc<Finished>) -> Self {
        Self { root, finished }
    }

    /// Serves one tunnel, to its end on either side. `client` asks the server that asked for the tunnel.
    pub(crate) async fn serve(self, tunnel: OpenTunnel, client: Client) {
        let (pieces, outgoing) = mpsc::channel(PIECES);
        let produce = async {
            let first = tunnel_request::Message::TunnelId(tunnel.tunnel_id.clone());
            if pieces.send(TunnelRequest { message: Some(first) }).await.is_err() {
                return;
            }
            let served = match tunnel.request {
                Some(open_tunnel::Request::Logs(request)) => self.produce(request, &pieces).await,
                None => Err((tonic::Code::Unimplemented, "this kubelet doesn't know what is asked for".to_owned())),
            };
            if let Err((code, message)) = served {
                let refusal = tunnel_request::Message::Refusal(ObjectRefusal { code: code.into(), message });
                // Nobody is there to be told when this fails.
                let _gone = pieces.send(TunnelRequest { message: Some(refusal) }).await;
            }
            drop(pieces);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = produce => {}
            ended = client.tunnel(ReceiverStream::new(outgoing)) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a tunnel was ended by the other side");
                }
            }
        }
    }

    async fn produce(&self, request: LogsRequest, pieces: &mpsc::Sender<TunnelRequest>) -> Result<(), Refusal> {
        let (uid, folder, container) = self.find(&request)?;
        let known = attempts(&folder, &container).map_err(unreadable)?;
        let mut attempt = match (request.previous, known.as_slice()) {
            (true, [.., previous, _]) => Some(*previous),
            (true, _) => return Err((tonic::Code::NotFound, format!("container {container} has no previous run"))),
            (false, known) => known.last().copied(),
        };
        let follow = request.follow && !request.previous;
        let mut tail = request.tail_lines;
        loop {
            if let Some(attempt) = attempt {
                let end = Tail { folder: &folder, container: &container, attempt, uid: &uid, follow };
                if !self.send_run(&end, tail.take(), pieces).await.map_err(unreadable)? {
                    return Ok(());
                }
            }
            if !follow {
                return Ok(());
            }
            match self.next_run(&uid, &folder, &container, attempt).await.map_err(unreadable)? {
                Some(next) => attempt = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn find(&self, request: &LogsRequest) -> Result<(PodUid, PodFolder, String), Refusal> {
        let not_found = |what: String| (tonic::Code::NotFound, what);
        let gone = || not_found(format!("pod {} has nothing on this node", request.pod));
        let uid = PodUid::new(&request.pod_uid).ok_or_else(gone)?;
        let folder = self.root.pod(&uid);
        let pod = std::fs::read(folder.pod()).ok().and_then(|bytes| Pod::decode(bytes.as_slice()).ok()).ok_or_else(gone)?;
        let names: Vec<&str> = pod.spec.iter().flat_map(|spec| spec.all_containers()).map(|container| container.name.as_str()).collect();
        let main: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
        let container = match (request.container.as_str(), main.as_slice()) {
            ("", [only]) => *only,
            ("", several) => {
                let message = format!("pod {} has several containers; name one of {}", request.pod, several.join(", "));
                return Err((tonic::Code::InvalidArgument, message));
            }
            (name, _) if names.contains(&name) => name,
            (name, _) => {
                return Err(not_found(format!("pod {} has no container {name}; there are {}", request.pod, names.join(", "))));
            }
        };
        Ok((uid, folder, container.to_owned()))
    }

    /// Sends the log of one run, with `follow` until that run's log can't grow any more; false when nobody listens any more.
    async fn send_run(&self, run: &Tail<'_>, tail: Option<u32>, pieces: &mpsc::Sender<TunnelRequest>) -> io::Result<bool> {
        let (folder, attempt) = (run.folder.logs(run.container), run.attempt);
        let mut text = Text::default();
        let mut next = blocking(move || open_first(&folder, attempt, tail)).await?;
        while let Some(Opened { mut file, number }) = next {
            next = None;
            loop {
                // Asked before the read: what was written before the end is read after it.
                let is_last = !run.follow || self.is_over(run)?;
                let is_full = log_files(&run.folder.logs(run.container))?.into_iter().any(|file| is_full(file, attempt, number));
                loop {
                    let (returned, piece) = read(file).await?;
                    file = returned;
                    if piece.is_empty() {
                        break;
                    }
                    // What was left of the piece before may make it longer than a piece may be.
                    for part in text.of(&piece).chunks(PIECE) {
                        let message = tunnel_request::Message::Data(part.to_vec());
                        if pieces.send(TunnelRequest { message: Some(message) }).await.is_err() {
                            return Ok(false);
                        }
                    }
                }
                if is_full {
                    let folder = run.folder.logs(run.container);
                    next = blocking(move || open_after(&folder, attempt, number)).await?;
                    break;
                }
                if is_last {
                    break;
                }
                tokio::time::sleep(FOLLOW_EVERY).await;
            }
        }
        Ok(true)
    }

    /// A newer run has begun, or none ever will.
    fn is_over(&self, run: &Tail<'_>) -> io::Result<bool> {
        let newest = attempts(run.folder, run.container)?.last().copied();
        Ok(newest != Some(run.attempt) || self.finished.contains(run.uid))
    }

    /// Waits for the run after `attempt`; `None` when there will be none.
    async fn next_run(&self, uid: &PodUid, folder: &PodFolder, container: &str, attempt: Option<u32>) -> io::Result<Option<u32>> {
        loop {
            let is_finished = self.finished.contains(uid) || !folder.path().exists();
            let next = attempts(folder, container)?.into_iter().find(|next| attempt.is_none_or(|attempt| *next > attempt));
            if next.is_some() || is_finished {
                return Ok(next);
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

/// Which run's log is sent.
struct Tail<'a> {
    folder: &'a PodFolder,
    container: &'a str,
    attempt: u32,
    uid: &'a PodUid,
    follow: bool,
}

fn unreadable(error: io::Error) -> Refusal {
    tracing::warn!(%error, "a log can't be read");
    (tonic::Code::Unavailable, "the log can't be read; the kubelet's log tells more".to_owned())
}

/// One file of a run's log.
struct Opened {
    file: File,
    /// The number that it has, or will have when it is full.
    number: u32,
}

/// Whether this file is the one of that number, which then isn't written any more, or a later one.
fn is_full(file: LogFile, attempt: u32, number: u32) -> bool {
    file.attempt == attempt && file.number >= number && file != LogFile::present(attempt)
}

/// The oldest file of a run that has some of its last lines. `None` when they are all gone, with their pod or for being old.
fn open_first(folder: &Path, attempt: u32, tail: Option<u32>) -> io::Result<Option<Opened>> {
    let mut opened = open_after(folder, attempt, 0)?;
    let (Some(mut missing), Some(_)) = (tail, &opened) else { return Ok(opened) };
    let mut all = Vec::new();
    while let Some(Opened { file, number }) = opened.take() {
        all.push((file, number));
        if log_files(folder)?.into_iter().any(|file| is_full(file, attempt, number)) {
            opened = open_after(folder, attempt, number)?;
        }
    }
    while let Some((mut file, number)) = all.pop() {
        let (start, found) = tail_start(&mut file, missing)?;
        missing -= found;
        if missing == 0 || all.is_empty() {
            file.seek(SeekFrom::Start(start))?;
            return Ok(Some(Opened { file, number }));
        }
    }
    Ok(None)
}

/// The oldest file of a run whose number is greater.
fn open_after(folder: &Path, attempt: u32, number: u32) -> io::Result<Option<Opened>> {
    loop {
        let files: Vec<LogFile> = log_files(folder)?.into_iter().filter(|file| file.attempt == attempt).collect();
        let Some(oldest) = files.iter().find(|file| file.number > number) else { return Ok(None) };
        let file = match File::open(oldest.path(folder)) {
            Ok(file) => file,
            // Renamed, or removed for being old, in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if *oldest != LogFile::present(attempt) {
            return Ok(Some(Opened { file, number: oldest.number }));
        }
        // It was not renamed before it was opened if there is still nothing in between.
        if !log_files(folder)?.into_iter().any(|file| is_full(file, attempt, number + 1)) {
            return Ok(Some(Opened { file, number: number + 1 }));
        }
    }
}

/// Takes what stands before the text of each record, and joins the pieces of long lines.
#[derive(Debug, Default)]
struct Text {
    /// The beginning of a record of which not all was read.
    rest: Vec<u8>,
}

impl Text {
    /// The text of the records that are complete with this.
    fn of(&mut self, piece: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(piece);
        let complete = memchr::memrchr(b'\n', &self.rest).map_or(0, |end| end + 1);
        let rest = self.rest.split_off(complete);
        let mut text = Vec::with_capacity(complete);
        for record in std::mem::replace(&mut self.rest, rest).split_inclusive(|byte| *byte == b'\n') {
            let mut fields = record.splitn(4, |byte| *byte == b' ').skip(2);
            let (tag, said) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            text.extend_from_slice(if tag == b"P" { said.strip_suffix(b"\n").unwrap_or(said) } else { said });
        }
        text
    }
}

async fn read(mut file: File) -> io::Result<(File, Vec<u8>)> {
    blocking(move || {
        let mut piece = vec![0; PIECE];
        let count = file.read(&mut piece)?;
        piece.truncate(count);
        Ok((file, piece))
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Where the last `lines` lines begin, read from the end, and how many there are.
fn tail_start(file: &mut (impl Read + Seek), lines: u32) -> io::Result<(u64, u32)> {
    let end = file.seek(SeekFrom::End(0))?;
    let (mut start, mut missing) = (end, lines);
    if lines == 0 || end == 0 {
        return Ok((end, 0));
    }
    let mut buffer = vec![0; PIECE];
    while start > 0 {
        let length = start.min(PIECE as u64);
        start -= length;
        file.seek(SeekFrom::Start(start))?;
        let piece = &mut buffer[..length as usize];
        file.read_exact(piece)?;
        for (index, byte) in piece.iter().enumerate().rev() {
            let position = start + index as u64;
            // The newline at the very end closes the last line, and begins none.
            if *byte == b'\n' && position + 1 != end {
                missing -= 1;
                if missing == 0 {
                    return Ok((position + 1, lines));
                }
            }
        }
    }
    // The first line begins with the file.
    Ok((0, lines - missing + 1))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn check(log: &str, lines: u32, expected: &str) {
        let (start, found) = tail_start(&mut Cursor::new(log.as_bytes()), lines).unwrap();
        assert_eq!(found as usize, expected.lines().count());
        assert_eq!(&log[start as usize..], expected, "the last {lines} of {} bytes", log.len());
    }

    #[test]
    fn a_tail_begins_so_many_lines_before_the_end() {
        check("a\nb\nc\n", 0, "");
        check("a\nb\nc\n", 1, "c\n");
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc\n", 3, "a\nb\nc\n");
        check("a\nb\nc\n", 9, "a\nb\nc\n");
        check("a\nb\nc", 1, "c");
        check("", 5, "");
        check("\n\n\n", 2, "\n\n");
    }

    #[test]
    fn a_tail_may_begin_in_a_file_that_is_full() {
        let folder = tempfile::tempdir().unwrap();
        for (name, lines) in [("0.log", "old\n"), ("1.log.3", "a\nb\n"), ("1.log.4", "c\nd\n"), ("1.log", "e\n")] {
            std::fs::write(folder.path().join(name), lines).unwrap();
        }
        for (tail, number, rest) in
            [(None, 3, "a\nb\n"), (Some(9), 3, "a\nb\n"), (Some(4), 3, "b\n"), (Some(3), 4, "c\nd\n"), (Some(1), 5, "e\n")]
        {
            let mut first = open_first(folder.path(), 1, tail).unwrap().unwrap();
            let mut read = String::new();
            first.file.read_to_string(&mut read).unwrap();
            assert_eq!((first.number, read.as_str()), (number, rest), "the last {tail:?}");
        }
        assert!(open_first(folder.path(), 2, Some(1)).unwrap().is_none());
    }

    #[test]
    fn text_is_what_was_written_whatever_was_read_at_once() {
        let log = b"2026-11-21T15:59:08.123456789Z stdout P one \n2026-11-21T15:59:08.123456789Z stdout F line\n2026-11-21T15:59:08.123456789Z stderr F \n";
        for cut in 0..log.len() {
            let mut text = Text::default();
            let said = [text.of(&log[..cut]), text.of(&log[cut..])].concat();
            assert_eq!(String::from_utf8(said).unwrap(), "one line\n\n");
        }
    }

    #[test]
    fn a_tail_may_begin_many_pieces_before_the_end() {
        let long = "x".repeat(3 * PIECE);
        let log = format!("first\n{long}\nlast\n");
        check(&log, 1, "last\n");
        check(&log, 2, &format!("{long}\nlast\n"));
    }
}
