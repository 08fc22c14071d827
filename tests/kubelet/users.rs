//! Containers that run as somebody else than the kubelet. Only root can do that.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use bluebird::api::v1::{Container, Pod, PodPhase, RestartPolicy};

use crate::configuration::{MAP, SECRET, pod};
use crate::machine::{FOREVER, Machine, phase, script, terminated};
use crate::processes::eventually;

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
        said_as(&machine, "numbered", "12345:54321", "id -u; id -g; id -G; touch here && echo touched; echo ${USER-none} ${HOME-none}")
            .await,
        "12345\n54321\n54321\ntouched\nnone none\n"
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

/// What a pod wrote into a file of its own folder, as soon as that is whole.
async fn told(machine: &Machine, pod: &Pod, file: &str) -> String {
    let path = machine.folder_of(pod).join("work").join(file);
    let whole = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with("end\n"));
    eventually(&format!("the end of {}", path.display()), whole).await
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_a_container_that_is_somebody_else_are_its_own_to_use_and_its_secrets_nobody_elses_to_read() {
    if !is_root() {
        return;
    }
    let machine = Machine::new().await;
    let host = machine.folder.path().join("host");
    std::fs::create_dir(&host).unwrap();
    for (folder, mode) in [(machine.folder.path(), 0o711), (&host, 0o777)] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let lines = format!(
        "    runAs: nobody
    volumeMounts:
    - {{name: own, mountPath: data/own}}
    - {{name: map, mountPath: etc/map}}
    - {{name: secret, mountPath: etc/secret}}
    - {{name: host, mountPath: deep/down/host}}
  - name: other
    command: [sh, -c, 'until grep -qs end told; do sleep 0.02; done; {{ cat etc/secret/password; cat etc/map/COLOUR; echo; echo x > data/own/theirs; rm data/own/file; cat data/own/file; echo end; }} > other 2>&1; exec sleep 1000']
    runAs: '12345:54321'
    volumeMounts: [{{name: own, mountPath: data/own}}]
  volumes:
  - {{name: own, emptyDir: {{}}}}
  - {{name: map, configMap: {{name: web}}}}
  - {{name: secret, secret: {{secretName: db}}}}
  - {{name: host, hostPath: {{path: {}}}}}
",
        host.display()
    );
    let script = "{ echo mine > data/own/file; cat $VOLUME_OWN/file; cat etc/map/COLOUR etc/secret/password; echo; ls etc/secret; touch data/beside deep/down/host/there; echo end; } > told 2>&1;
        until grep -q horse etc/secret/password; do sleep 0.02; done; { cat etc/secret/password; echo; echo end; } > later 2>&1; exec sleep 1000"
        .replace("\n        ", " ");
    machine.apply(&format!("{MAP}{SECRET}{}", pod("web", &script, &lines))).await;
    let (web, _) = machine.running("web").await;
    assert_eq!(told(&machine, &web, "told").await, "mine\nbluehunter2\npassword\nend\n");
    let other = told(&machine, &web, "other").await;
    assert!(other.contains("etc/secret/password: Permission denied") && !other.contains("hunter2"), "{other}");
    assert!(other.contains("blue\n") && other.contains("data/own/file") && other.ends_with("mine\nend\n"), "{other}");
    machine.apply(&SECRET.replace("hunter2", "correct horse")).await;
    assert_eq!(told(&machine, &web, "later").await, "correct horse\nend\n");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let file = std::fs::metadata(machine.folder_of(&web).join("volumes/secret/password")).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o777), (nobody.uid.as_raw(), 0o600));
    assert_eq!(std::fs::metadata(host.join("there")).unwrap().uid(), nobody.uid.as_raw());
    machine.finish().await;
}
