//! What a shim makes of what its containers write.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::processes::{eventually, is_alive};
use crate::shim::Fixture;

/// One record of a log.
#[derive(Debug)]
pub(crate) struct Record {
    stream: String,
    tag: String,
    text: Vec<u8>,
}

/// Every record of a run that is kept.
pub(crate) fn records(folder: &Path, attempt: u32) -> Vec<Record> {
    let content: Vec<u8> = files(folder, attempt).into_iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let whole = content.split_inclusive(|byte| *byte == b'\n').filter(|record| record.ends_with(b"\n"));
    whole.map(|record| parse(&record[..record.len() - 1])).collect()
}

fn parse(record: &[u8]) -> Record {
    let fields: Vec<&[u8]> = record.splitn(4, |byte| *byte == b' ').collect();
    let [time, stream, tag, text] = fields[..] else { panic!("no record: {:?}", String::from_utf8_lossy(record)) };
    assert!(time.len() == 30 && time.ends_with(b"Z") && time.starts_with(b"20"), "no time: {:?}", String::from_utf8_lossy(time));
    let word = |word: &[u8]| String::from_utf8(word.to_vec()).unwrap();
    Record { stream: word(stream), tag: word(tag), text: text.to_vec() }
}

/// The files of a run's log, from the oldest to the newest.
fn files(folder: &Path, attempt: u32) -> Vec<PathBuf> {
    let names = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let number = |name: String| match name.strip_prefix(&format!("{attempt}.log"))? {
        "" => Some(u32::MAX),
        number => number.strip_prefix('.')?.parse().ok(),
    };
    let mut numbers: Vec<u32> = names.filter_map(number).collect();
    numbers.sort_unstable();
    let name = |number| if number == u32::MAX { format!("{attempt}.log") } else { format!("{attempt}.log.{number}") };
    numbers.into_iter().map(|number| folder.join(name(number))).collect()
}

/// What was written to a stream, or to both.
pub(crate) fn text(records: &[Record], stream: Option<&str>) -> Vec<u8> {
    let mut text = Vec::new();
    for record in records.iter().filter(|record| stream.is_none_or(|stream| stream == record.stream)) {
        text.extend_from_slice(&record.text);
        if record.tag == "F" {
            text.push(b'\n');
        }
    }
    text
}

#[tokio::test]
async fn a_line_of_ten_megabytes_without_newline_is_kept_in_pieces() {
    let mut pod = Fixture::new();
    pod.want(&[pod.script("main", 0, "head -c 10000000 /dev/zero | tr '\\0' x")], None);
    pod.start();
    pod.ended("main", 0).await;
    let records = records(&pod.path("logs/main"), 0);
    let (last, pieces) = records.split_last().unwrap();
    assert!(pieces.iter().all(|piece| piece.tag == "P" && piece.text.len() == 16 * 1024), "pieces of another size");
    assert_eq!((last.tag.as_str(), pieces.len()), ("F", 10_000_000 / (16 * 1024)));
    let line = text(&records, Some("stdout"));
    assert!(line.len() == 10_000_001 && line[..10_000_000].iter().all(|byte| *byte == b'x'), "{} bytes", line.len());
    pod.shim_ends().await;
}

#[tokio::test]
async fn binary_output_is_kept_byte_by_byte() {
    let mut pod = Fixture::new();
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 16) as u8).chain(*b"\n").collect();
    std::fs::write(pod.path("binary"), &bytes).unwrap();
    let file = pod.path("binary").display().to_string();
    pod.want(&[pod.script("main", 0, &format!("cat {file}; cat {file} >&2"))], None);
    pod.start();
    pod.ended("main", 0).await;
    let records = records(&pod.path("logs/main"), 0);
    for stream in ["stdout", "stderr"] {
        assert!(text(&records, Some(stream)) == bytes, "{stream} is not what was written");
    }
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_process_that_writes_without_end_takes_bounded_disk_and_its_newest_lines_stay() {
    let mut pod = Fixture::new();
    let (max_bytes, max_files) = (64 * 1024, 3);
    let mut run = pod.script("main", 0, "seq 1 400000");
    run["log_limits"] = json!({ "max_bytes": max_bytes, "max_files": max_files });
    pod.want(&[run], None);
    pod.start();
    let folder = pod.path("logs/main");
    let is_over = || pod.state("main").is_some_and(|state| state["stage"].get("Ended").is_some());
    let mut largest = 0;
    eventually("the end of the writer", || {
        let sizes = files(&folder, 0).into_iter().filter_map(|path| Some(std::fs::metadata(path).ok()?.len()));
        // A file that is renamed between two looks may be counted twice.
        largest = largest.max(sizes.sum());
        is_over().then_some(())
    })
    .await;
    assert!(largest <= (max_files + 1) * max_bytes, "{largest} bytes");
    let kept = files(&folder, 0);
    assert_eq!(kept.len() as u64, max_files);
    assert!(kept.iter().all(|path| std::fs::metadata(path).unwrap().len() <= max_bytes));
    let lines = String::from_utf8(text(&records(&folder, 0), None)).unwrap();
    let numbers: Vec<u32> = lines.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 2000 && numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a line is missing");
    assert_eq!(numbers.last(), Some(&400_000));
    pod.shim_ends().await;
}

#[tokio::test]
async fn what_is_written_in_the_grace_period_after_the_main_process_has_ended_is_logged() {
    let mut pod = Fixture::new();
    let go = pod.path("go");
    let late = format!("(trap '' TERM; echo ready; while [ ! -e {} ]; do sleep 0.01; done; echo late) &", go.display());
    let run = pod.script("main", 0, &format!("trap 'exit 0' TERM; {late} wait"));
    pod.want(std::slice::from_ref(&run), None);
    pod.start();
    let main = pod.running("main", 0).await;
    eventually("the traps", || (pod.log("main", 0) == "ready\n").then_some(())).await;
    pod.want(&[run], Some(600_000));
    eventually("the end of the main process", || (!is_alive(main)).then_some(())).await;
    std::fs::write(go, "").unwrap();
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 0 }));
    assert_eq!(pod.log("main", 0), "ready\nlate\n");
    pod.shim_ends().await;
}

/// A file system of this size, which is gone with it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&place).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(place))
    }

    fn grow(&self, size: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_holds_no_process_up_and_what_it_costs_is_said_when_there_is_room() {
    let mut pod = Fixture::new();
    let Some(disk) = SmallDisk::mount(pod.path("logs"), "256k") else {
        println!("SKIPPED: only root can mount a small file system");
        return;
    };
    let (done, go) = (pod.path("done"), pod.path("go"));
    let script = format!("seq 1 100000; touch {}; while [ ! -e {} ]; do sleep 0.01; done; echo after", done.display(), go.display());
    pod.want(&[pod.script("main", 0, &script)], None);
    pod.start();
    eventually("that all was written, room or not", || done.exists().then_some(())).await;
    disk.grow("16m");
    // The rest of a page may take a record now and then, so that there may be several of these.
    let lost = || -> usize {
        let text = String::from_utf8(text(&records(&pod.path("logs/main"), 0), Some("stderr"))).unwrap();
        let bytes = |line: &str| {
            line.strip_prefix("bluebird: ")?.strip_suffix(" bytes of output were lost: no space left on device")?.parse::<usize>().ok()
        };
        text.lines().map(|line| bytes(line).unwrap_or_else(|| panic!("{line}"))).sum::<usize>()
    };
    let kept = || String::from_utf8(text(&records(&pod.path("logs/main"), 0), Some("stdout"))).unwrap();
    let all: usize = (1..=100_000).map(|number: u32| number.to_string().len() + 1).sum();
    eventually("the record of all that was lost", || (kept().len() + lost() == all).then_some(())).await;
    assert!(lost() > 0);
    std::fs::write(go, "").unwrap();
    pod.ended("main", 0).await;
    let kept = kept();
    let numbers: Vec<u32> = kept.strip_suffix("after\n").unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a line is there twice");
    pod.shim_ends().await;
}

#[tokio::test]
async fn a_log_that_takes_nothing_holds_no_process_up() {
    let mut pod = Fixture::new();
    std::fs::create_dir_all(pod.path("logs/main")).unwrap();
    std::os::unix::fs::symlink("/dev/full", pod.path("logs/main/0.log")).unwrap();
    pod.want(&[pod.script("main", 0, "seq 1 100000; exit 3")], None);
    pod.start();
    assert_eq!(pod.ended("main", 0).await, json!({ "Exited": 3 }));
    pod.shim_ends().await;
}
