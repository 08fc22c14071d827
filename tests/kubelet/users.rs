//! Containers that run as somebody else than the kubelet. Only root can do that.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use bluebird::api::v1::{Container, PodPhase, RestartPolicy};

use crate::machine::{FOREVER, Machine, phase, script, terminated};

fn as_user(user: &str, text: &str) -> Container {
    Container { run_as: user.into(), ..script("main", text) }
}

/// What a container said that ran as a user to its end.
async fn said_as(machine: &Machine, name: &str, user: &str, text: &str) -> String {
    machine.create(name, RestartPolicy::Never, vec![as_user(user, text)]).await;
    let pod = machine.until(name, "ended", |pod| terminated(pod).is_some()).await;
    assert_eq!(phase(&pod), PodPhase::Succeeded, "{:?} {:?}", terminated(&pod), machine.log(name, false, false).await);
    machine.log(name, false, false).await.unwrap()
}

fn is_root() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        println!("SKIPPED: only root can run a container as another user");
    }
    is_root
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_as_the_user_that_it_names_with_that_users_groups_and_folder() {
    if !is_root() {
        return;
    }
    let machine = Machine::new().await;
    let account = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let home = account.dir.display();
    let text = "id -u; id -g; echo $USER $HOME; touch here && echo touched; echo again > /dev/stdout; stat -c %u .";
    let (uid, gid) = (account.uid, account.gid);
    let expected = format!("{uid}\n{gid}\nnobody {home}\ntouched\nagain\n{uid}\n");
    assert_eq!(said_as(&machine, "named", "nobody", text).await, expected);
    assert_eq!(
        said_as(&machine, "numbered", "12345:54321", "id -u; id -g; id -G; touch here && echo touched").await,
        "12345\n54321\n54321\ntouched\n"
    );
    assert_eq!(said_as(&machine, "grouped", "nobody:0", "id -u; id -g").await, format!("{uid}\n0\n"));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_somebody_else_can_read_nothing_of_its_pod_but_its_own_folder() {
    if !is_root() {
        return;
    }
    let machine = Machine::new().await;
    let text = "cat ../desired.json ../state.json ../pod.binpb 2>/dev/null; ls .. ../logs ../.. 2>/dev/null; echo done";
    assert_eq!(said_as(&machine, "curious", "nobody", text).await, "done\n");
    // Whoever can open a lock can hold it for ever.
    let text = "for file in ../lock ../shim.log ../../../lock; do cat $file > /dev/null 2>&1 && echo read $file; done; echo done";
    assert_eq!(said_as(&machine, "holder", "nobody", text).await, "done\n");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_kubelet_let_others_read_they_can_read_no_more() {
    let mut machine = Machine::new().await;
    let pod = machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("web").await;
    machine.kill_kubelet().await;
    let folder = machine.folder_of(&pod);
    let files = [machine.root().join("lock"), folder.join("lock"), folder.join("shim.log")];
    files.iter().for_each(|file| std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap());
    machine.start_kubelet().await;
    for file in &files {
        assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_does_not_exist_is_told_as_the_reason() {
    if !is_root() {
        return;
    }
    let machine = Machine::new().await;
    for (name, user, expected) in [
        ("user", "no-such-user", "the user no-such-user does not exist"),
        ("group", "nobody:no-such-group", "the group no-such-group does not exist"),
        ("number", "4000000", "the user 4000000 does not exist, so its group must be named: 4000000:GROUP"),
    ] {
        machine.create(name, RestartPolicy::Never, vec![as_user(user, "exit 0")]).await;
        let pod = machine.until(name, "failed", |pod| phase(pod) == PodPhase::Failed).await;
        let ended = terminated(&pod).unwrap();
        assert_eq!(ended.reason, "StartError");
        assert!(ended.message.contains(expected), "{}", ended.message);
    }
    machine.finish().await;
}
