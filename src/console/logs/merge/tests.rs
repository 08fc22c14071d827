use super::*;
use crate::api::v1::LogGap;

/// Merges logs by hand; what is written, and the time, are the test's.
struct Scene {
    merge: Merge<()>,
    now: Instant,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Scene {
    fn new(logs: u64) -> Self {
        Self::with(Merge::new(false), logs)
    }

    fn with(merge: Merge<()>, logs: u64) -> Self {
        let mut scene = Self { merge, now: Instant::now(), out: Vec::new(), err: Vec::new() };
        for id in 0..logs {
            scene.merge.add(id, format!("[{id}] "), scene.now);
        }
        scene
    }

    /// A piece of a log: each line with its second.
    fn piece(&mut self, id: u64, lines: &[(u32, &str)]) {
        let data: String = lines.iter().map(|(second, text)| format!("2026-11-21T16:00:{second:02}.000000000Z {text}")).collect();
        self.data(id, data.as_bytes());
    }

    fn data(&mut self, id: u64, data: &[u8]) {
        self.merge.piece(id, LogsResponse { data: data.to_vec(), ..Default::default() }, (), self.now);
    }

    fn gap(&mut self, id: u64, data: &[u8]) {
        let gap = Some(LogGap { message: "lost".into() });
        self.merge.piece(id, LogsResponse { data: data.to_vec(), gap, ..Default::default() }, (), self.now);
    }

    fn pass(&mut self) {
        self.now += LATE;
    }

    /// What is written now.
    #[track_caller]
    fn check(&mut self, expected: &str) {
        self.out.clear();
        self.merge.write(self.now, &mut self.out, &mut self.err).unwrap();
        assert_eq!(String::from_utf8_lossy(&self.out), expected);
    }
}

#[test]
fn lines_are_in_the_order_of_their_times_once_every_log_is_heard_of() {
    let mut scene = Scene::new(3);
    scene.piece(0, &[(1, "a\n"), (4, "d\n")]);
    scene.piece(1, &[(2, "b\n"), (3, "c\n")]);
    scene.check("");
    scene.piece(2, &[(9, "z\n")]);
    scene.check("[0] a\n[1] b\n[1] c\n");
    scene.merge.over(1);
    scene.check("[0] d\n");
    scene.pass();
    scene.check("");
    scene.merge.over(0);
    scene.check("[2] z\n");
    assert!(!scene.merge.is_empty());
    scene.merge.over(2);
    scene.check("");
    assert!(scene.merge.is_empty());
}

#[test]
fn a_quiet_log_is_waited_for_no_longer_than_that() {
    let mut scene = Scene::new(2);
    scene.data(1, b"");
    scene.piece(0, &[(5, "a\n")]);
    scene.check("");
    scene.piece(1, &[(4, "b\n")]);
    scene.check("[1] b\n");
    scene.pass();
    scene.check("[0] a\n");
    scene.piece(0, &[(6, "c\n")]);
    assert_eq!(scene.merge.write(scene.now, &mut Vec::new(), &mut Vec::new()).unwrap(), Some(scene.now + LATE));
}

#[test]
fn a_log_whose_connection_broke_holds_no_other_up() {
    let mut scene = Scene::new(2);
    scene.piece(0, &[(5, "a\n")]);
    scene.check("");
    scene.merge.broken(1);
    scene.pass();
    scene.check("[0] a\n");
}

#[test]
fn what_one_container_wrote_stays_in_its_order_when_the_clock_is_set_back() {
    let mut scene = Scene::new(2);
    scene.piece(0, &[(50, "a\n"), (10, "b\n"), (11, "c\n")]);
    scene.piece(1, &[(12, "x\n"), (51, "y\n")]);
    scene.merge.over(0);
    scene.merge.over(1);
    scene.check("[1] x\n[0] a\n[0] b\n[0] c\n[1] y\n");
}

#[test]
fn a_long_line_is_written_as_it_comes_and_nothing_in_the_middle_of_it() {
    let mut scene = Scene::new(2);
    scene.piece(0, &[(1, "begun ")]);
    scene.piece(1, &[(2, "other\n")]);
    scene.check("[0] begun ");
    scene.data(0, b"and ended\n");
    scene.check("and ended\n");
    scene.merge.over(0);
    scene.check("[1] other\n");
}

#[test]
fn a_line_that_never_ends_holds_no_other_up() {
    let mut scene = Scene::new(2);
    scene.data(0, b"");
    scene.data(1, b"");
    scene.piece(0, &[(1, "begun ")]);
    scene.pass();
    scene.check("[0] begun ");
    scene.piece(1, &[(2, "other\n")]);
    scene.check("");
    scene.pass();
    scene.check("\n[1] other\n");
    scene.data(0, b"and ended\n");
    scene.pass();
    scene.check("[0] and ended\n");
}

#[test]
fn bytes_of_one_log_alone_stay_as_they_are() {
    let mut scene = Scene::new(1);
    scene.data(0, b"2026-11-21T16:00:01.000000000Z \xff\0 no end");
    scene.merge.over(0);
    scene.out.clear();
    scene.merge.write(scene.now, &mut scene.out, &mut scene.err).unwrap();
    assert_eq!((scene.out.as_slice(), scene.merge.is_empty()), (&b"[0] \xff\0 no end"[..], true));
}

#[test]
fn lines_that_several_logs_end_without_are_ended() {
    let mut scene = Scene::new(2);
    scene.piece(0, &[(1, "no end")]);
    scene.piece(1, &[(2, "other\n")]);
    scene.merge.over(0);
    scene.merge.over(1);
    scene.check("[0] no end\n[1] other\n");
}

#[test]
fn times_are_written_if_they_are_wanted_and_needed_by_nobody() {
    let mut scene = Scene::with(Merge::new(true), 1);
    scene.piece(0, &[(1, "a\n")]);
    scene.check("[0] 2026-11-21T16:00:01.000000000Z a\n");
    let mut scene = Scene::new(1);
    scene.data(0, b"of a kubelet that tells no times\nshort\n");
    scene.check("[0] of a kubelet that tells no times\n[0] short\n");
}

#[test]
fn what_is_missing_is_said_between_the_lines() {
    let mut scene = Scene::new(1);
    scene.piece(0, &[(1, "begun")]);
    scene.check("[0] begun");
    scene.gap(0, b"\n2026-11-21T16:00:01.000000000Z next\n");
    scene.check("\n[0] next\n");
    assert_eq!(String::from_utf8_lossy(&scene.err), "[0] lost\n");
}
