use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn files(files: &[(&str, &str)]) -> Files {
    files.iter().map(|(path, content)| ((*path).to_owned(), content.as_bytes().to_vec())).collect()
}

/// What a reader finds in a folder: names that begin with `..` are ours.
fn found(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    names
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_volume_has_exactly_the_files_that_were_written_last_with_their_modes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(!has_files(folder));
    write_files(folder, &files(&[("a", "1"), ("sub/dir/b", "2"), ("old", "")]), Access::Private(None)).unwrap();
    assert!(has_files(folder));
    assert_eq!((found(folder), read(folder.join("sub/dir/b"))), (vec!["a".into(), "old".into(), "sub".into()], "2".to_owned()));
    let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().mode() & 0o777;
    assert_eq!([mode("."), mode("a"), mode("sub"), mode("sub/dir"), mode("sub/dir/b")], [0o700, 0o600, 0o700, 0o700, 0o600]);

    write_files(folder, &files(&[("a", "3"), ("new", "4")]), Access::Readable).unwrap();
    assert_eq!((found(folder), read(folder.join("a"))), (vec!["a".into(), "new".into()], "3".to_owned()));
    assert_eq!([mode("."), mode("a")], [0o755, 0o644]);
    write_files(folder, &Files::new(), Access::Readable).unwrap();
    assert_eq!(found(folder), Vec::<String>::new());
    let states: Vec<u64> = states(folder).unwrap();
    assert_eq!(states, [2, 3], "the one before stays for who is just reading in it");
}

#[test]
fn files_that_are_so_already_are_left_alone_and_what_was_changed_in_them_is_set_right() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let wanted = files(&[("a", "1"), ("b", "2")]);
    write_files(folder, &wanted, Access::Readable).unwrap();
    let inode = fs::metadata(folder.join("a")).unwrap().ino();
    write_files(folder, &wanted, Access::Readable).unwrap();
    assert_eq!(fs::metadata(folder.join("a")).unwrap().ino(), inode);
    fs::write(folder.join("a"), "mine").unwrap();
    fs::remove_file(folder.join("b")).unwrap();
    write_files(folder, &wanted, Access::Readable).unwrap();
    assert_eq!((read(folder.join("a")), read(folder.join("b"))), ("1".to_owned(), "2".to_owned()));
}

/// Whoever holds the present state open, as a program that was started in the volume does, sees both files of one state.
#[test]
fn all_files_switch_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let state = |number: usize| files(&[("a", &number.to_string()), ("b", &number.to_string())]);
    write_files(folder.path(), &state(0), Access::Readable).unwrap();
    let is_over = AtomicBool::new(false);
    let pairs = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut pairs = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let data = fs::read_link(folder.path().join(DATA)).unwrap();
                let pair = ["a", "b"].map(|name| fs::read_to_string(folder.path().join(&data).join(name)));
                // Two changes may have come since the link was read.
                if let [Ok(a), Ok(b)] = pair {
                    pairs.push((a, b));
                }
            }
            pairs
        });
        for number in 1..300 {
            write_files(folder.path(), &state(number), Access::Readable).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(!pairs.is_empty());
    assert!(pairs.iter().all(|(a, b)| a == b), "{pairs:?}");
}

#[test]
fn a_volume_that_was_made_read_only_is_written_and_removed_all_the_same() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("volume");
    fs::create_dir(&folder).unwrap();
    for content in ["1", "2", "3"] {
        write_files(&folder, &files(&[("sub/a", content)]), Access::Private(None)).unwrap();
        assert_eq!(read(folder.join("sub/a")), content);
        for path in ["sub", "."] {
            fs::set_permissions(folder.join(path), Permissions::from_mode(0o500)).unwrap();
        }
    }
    remove_folder(&folder).unwrap();
    assert!(!folder.exists());
    remove_folder(&folder).unwrap();
}

#[test]
fn a_state_that_cannot_be_written_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_files(folder, &files(&[("a", "1")]), Access::Readable).unwrap();
    let too_long = "n".repeat(300);
    write_files(folder, &files(&[("a", "2"), (&too_long, "")]), Access::Readable).unwrap_err();
    assert_eq!((read(folder.join("a")), states(folder).unwrap()), ("1".to_owned(), vec![1]));
}

#[test]
fn a_link_is_made_below_its_folder_and_leads_where_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for target in ["../one", "../two", "../two"] {
        link(folder, "etc/web/config", Path::new(target), None).unwrap();
        assert_eq!(fs::read_link(folder.join("etc/web/config")).unwrap(), Path::new(target));
    }
    link(folder, "data", Path::new("/var"), None).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    for path in ["file", "file/below", "etc/web"] {
        let error = link(folder, path, Path::new("x"), None).unwrap_err();
        assert!(error.to_string().contains("something else is at"), "{path}: {error}");
    }
}

#[test]
fn no_link_that_a_container_has_prepared_is_followed() {
    for user in [None, Some("12345:54321")].into_iter().filter(|user| user.is_none() || is_root()) {
        let parent = tempfile::tempdir().unwrap();
        let (work, outside) = (parent.path().join("work"), parent.path().join("outside"));
        for folder in [&work, &outside] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(outside.join("precious"), "1").unwrap();
        symlink(&outside, work.join("trap")).unwrap();
        let error = link(&work, "trap/config", Path::new("x"), user).unwrap_err();
        assert!(error.to_string().contains("something else is at \"trap\""), "{error}");
        symlink(parent.path().join("nowhere"), work.join("dangling")).unwrap();
        let error = link(&work, "dangling/config", Path::new("x"), user).unwrap_err();
        assert!(error.to_string().contains("something else is at \"dangling\""), "{error}");
        assert_eq!(found(&outside), ["precious"]);
        symlink(outside.join("precious"), work.join("mount")).unwrap();
        link(&work, "mount", Path::new("x"), user).unwrap();
        // What stays of an earlier attempt, and what a user has put into it meanwhile.
        symlink(&outside, parent.path().join("work.new")).unwrap();
        link(&work, "fresh/deep/mount", Path::new("x"), user).unwrap();
        assert!(!parent.path().join("work.new").exists());
        remove_folder(&work).unwrap();
        assert_eq!(read(outside.join("precious")), "1");
        let prepared = parent.path().join("prepared");
        symlink(&outside, &prepared).unwrap();
        link(&prepared, "config", Path::new("x"), user).unwrap_err();
        assert_eq!(found(&outside), ["precious"]);
        assert_eq!(fs::metadata(&outside).unwrap().uid(), nix::unistd::Uid::effective().as_raw());
    }
}

/// What is in the place of a folder on the way, also since a moment ago, is given to nobody.
#[test]
fn a_folder_that_is_there_is_given_to_nobody_and_stays_as_it_is() {
    for user in [None, Some("12345:54321")].into_iter().filter(|user| user.is_none() || is_root()) {
        let parent = tempfile::tempdir().unwrap();
        let work = parent.path().join("work");
        fs::create_dir_all(work.join("private/own")).unwrap();
        exactly(&work.join("private"), 0o700).unwrap();
        link(&work, "private/data", Path::new("x"), user).unwrap();
        let of = |path: &str| fs::metadata(work.join(path)).map(|found| (found.uid(), found.mode() & 0o777)).unwrap();
        assert_eq!(of("private"), (nix::unistd::Uid::effective().as_raw(), 0o700));
        let at: OwnedFd = File::open(&work).unwrap().into();
        let user = user.map(|user| user::find(user).unwrap());
        let error = make_whole(&work, &at, "private", user.as_ref()).unwrap_err();
        assert!(error.to_string().contains("something else is at \"private\""), "{error}");
        assert_eq!((of("private"), of("private/own").0), ((nix::unistd::Uid::effective().as_raw(), 0o700), of("private").0));
    }
}

/// Only root can give files away.
fn is_root() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        println!("SKIPPED: only root can write files for another user");
    }
    is_root
}

#[test]
fn files_for_a_user_are_his_in_folders_that_are_not() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let wanted = files(&[("a", "1"), ("sub/b", "2")]);
    write_files(folder, &wanted, Access::Private(None)).unwrap();
    write_files(folder, &wanted, Access::Private(Some("12345:54321"))).unwrap();
    let of = |path: &str| {
        let found = fs::metadata(folder.join(path)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    assert_eq!([of("."), of("..data/"), of("sub")], [(0, 54321, 0o750); 3]);
    assert_eq!([of("a"), of("sub/b")], [(12345, 54321, 0o600); 2]);
    assert_eq!(read(folder.join("sub/b")), "2");
}

#[test]
fn folders_on_the_way_to_a_link_are_the_users() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("mine")).unwrap();
    link(folder.path(), "mine/new/data", Path::new("x"), Some("12345:54321")).unwrap();
    let of = |path: &str| fs::metadata(folder.path().join(path)).map(|found| (found.uid(), found.mode() & 0o777)).unwrap();
    assert_eq!(of("mine").0, 0, "what was there before stays whose it is");
    assert_eq!(of("mine/new"), (12345, 0o755));
    link(folder.path(), "etc/map", Path::new("x"), None).unwrap();
    link(folder.path(), "etc/secret", Path::new("x"), Some("12345:54321")).unwrap();
    assert_eq!(of("etc"), (0, 0o755), "he gets through a folder that another container had made");
}

#[test]
fn of_a_file_that_somebody_made_longer_no_more_is_read_than_there_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2").unwrap();
    assert!(is_all_of(&file, b"hunter2").unwrap() && !is_all_of(&file, b"hunter3").unwrap() && !is_all_of(&file, b"hunter").unwrap());
    File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
    assert!(!is_all_of(&file, b"hunter2").unwrap());
}

#[test]
fn a_folder_that_several_users_share_belongs_to_none_of_them() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    exactly(folder.path(), 0o700).unwrap();
    let given_to = |user: &str| {
        user::hand_over(folder.path(), &[], &user::find(user).unwrap()).unwrap();
        let found = fs::metadata(folder.path()).unwrap();
        (found.uid(), found.mode() & 0o7777)
    };
    assert_eq!(given_to("12345:54321"), (12345, 0o700));
    assert_eq!(given_to("12345:54321"), (12345, 0o700));
    assert_eq!(["12346:54321", "12345:54321", "12347:54321"].map(given_to), [(0, 0o1777); 3]);
}
