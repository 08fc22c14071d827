//! A node without an apiserver: it keeps its pods, starts them again, also after a reboot, and tells the truth when it can.

use std::path::Path;
use std::time::Duration;

use bluebird::api::Resource;
use bluebird::api::v1::{ClusterEvent, Container, ContainerPort, Pod, PodPhase, RestartPolicy, Service, ServicePort, ServiceSpec};
use bluebird::client::Client;
use bluebird::kubelet;
use bluebird::time::{Clock, to_system_time};
use serde_json::Value;

use crate::machine::{FOREVER, Machine, main_status, phase, pid, script, terminated, waits_for};
use crate::pods::list_in_slice;
use crate::processes::{eventually, is_alive};

/// What the shim has written of the only container of a pod.
fn seen(folder: &Path) -> Option<Value> {
    let state: Value = serde_json::from_slice(&std::fs::read(folder.join("state.json")).ok()?).ok()?;
    state["containers"].get(0).cloned()
}

fn running(folder: &Path) -> Option<(u64, i32)> {
    let seen = seen(folder)?;
    let pid = seen["stage"]["Running"]["pid"].as_i64().filter(|pid| *pid != 0)? as i32;
    is_alive(pid).then_some((seen["attempt"].as_u64()?, pid))
}

async fn events(client: &Client, pod: &Pod) -> Vec<(String, String)> {
    let events = client.list::<ClusterEvent>("").await.unwrap();
    let specs = events.into_iter().filter_map(|event| event.spec);
    let own = specs.filter(|spec| spec.regarding.as_ref().is_some_and(|regarding| regarding.uid == pod.meta().uid));
    own.map(|spec| (spec.reason, spec.note)).collect()
}

/// The table of situations in which a reboot may find a pod, and what must come of it: first alone, then with an apiserver again.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_without_an_apiserver_each_pod_goes_on_as_its_situation_asks() {
    let mut machine = Machine::new().await;
    let ended = |code: i32| vec![script("main", &format!("exit {code}"))];
    let forever = || vec![script("main", FOREVER)];
    let always = machine.create("always", RestartPolicy::Always, forever()).await;
    let on_failure = machine.create("on-failure", RestartPolicy::OnFailure, forever()).await;
    let never = machine.create("never", RestartPolicy::Never, forever()).await;
    let succeeded = machine.create("succeeded", RestartPolicy::OnFailure, ended(0)).await;
    let failed = machine.create("failed", RestartPolicy::Never, ended(3)).await;
    let forgetful = machine.create("forgetful", RestartPolicy::Never, ended(0)).await;
    let crashes = machine.create("crashes", RestartPolicy::Always, ended(5)).await;
    let doomed = machine.create("doomed", RestartPolicy::Always, forever()).await;
    let unprepared = machine.create("unprepared", RestartPolicy::Always, forever()).await;
    let unreadable = machine.create("unreadable", RestartPolicy::Always, forever()).await;
    let reborn = machine.create("reborn", RestartPolicy::Always, forever()).await;
    let stopped = machine.create("stopped", RestartPolicy::Always, forever()).await;
    let folder = |pod: &Pod| machine.root().join("pods").join(&pod.meta().uid);
    let [always_at, on_failure_at, never_at, succeeded_at, failed_at, forgetful_at, crashes_at] =
        [&always, &on_failure, &never, &succeeded, &failed, &forgetful, &crashes].map(folder);
    let [doomed_at, unprepared_at, unreadable_at, reborn_at, stopped_at] =
        [&doomed, &unprepared, &unreadable, &reborn, &stopped].map(folder);
    for name in ["always", "on-failure", "never", "unprepared", "unreadable", "reborn", "stopped"] {
        machine.running(name).await;
    }
    machine.until("succeeded", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    machine.until("forgetful", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    machine.until("failed", "done", |pod| phase(pod) == PodPhase::Failed).await;
    machine.until("crashes", "backing off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    // Its deletion waits for the routers when the power goes.
    let (_, doomed_pid) = machine.running("doomed").await;
    list_in_slice(&machine.client, &doomed).await;
    machine.delete("doomed", None).await;
    eventually("the note of a deletion", || {
        let kept = std::fs::read(doomed_at.join("pod.binpb")).ok()?;
        let kept: Pod = prost::Message::decode(kept.as_slice()).ok()?;
        kept.meta().deletion_time.map(drop)
    })
    .await;
    assert!(is_alive(doomed_pid), "it drains");
    for at in [&succeeded_at, &forgetful_at, &failed_at] {
        eventually("the note of an end", || {
            let kept: Pod = prost::Message::decode(std::fs::read(at.join("pod.binpb")).ok()?.as_slice()).ok()?;
            matches!(phase(&kept), PodPhase::Succeeded | PodPhase::Failed).then_some(())
        })
        .await;
    }

    machine.kill_kubelet().await;
    machine.lose_all_processes().await;
    // A kubelet that had just heard of it; one whose shim's notes the power took; one of which nothing can be read.
    for entry in std::fs::read_dir(&unprepared_at).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.file_name().unwrap() == "pod.binpb" {
            true => {}
            false if entry.is_dir() => std::fs::remove_dir_all(entry).unwrap(),
            false => std::fs::remove_file(entry).unwrap(),
        }
    }
    std::fs::write(forgetful_at.join("state.json"), "").unwrap();
    std::fs::write(unreadable_at.join("pod.binpb"), "").unwrap();

    machine.start_kubelet_alone().await;
    for (name, at) in [("always", &always_at), ("on-failure", &on_failure_at), ("reborn", &reborn_at), ("stopped", &stopped_at)] {
        let (attempt, _) = eventually(&format!("another run of {name}"), || running(at)).await;
        assert_eq!(attempt, 1, "{name}");
    }
    eventually("the first run of what was known and not prepared", || running(&unprepared_at).filter(|(attempt, _)| *attempt == 0)).await;
    eventually("the next crash", || seen(&crashes_at).filter(|seen| seen["attempt"].as_u64() > Some(1))).await;
    // By now everything had its turn more than once.
    assert_eq!(seen(&never_at).unwrap()["stage"]["Ended"]["cause"], "Lost");
    for (name, at) in [("never", &never_at), ("succeeded", &succeeded_at), ("failed", &failed_at), ("doomed", &doomed_at)] {
        assert_eq!(seen(at).unwrap()["attempt"], 0, "{name} was run again");
    }
    assert!(running(&forgetful_at).is_none() && running(&doomed_at).is_none());
    assert_eq!(std::fs::read_to_string(forgetful_at.join("state.json")).unwrap(), "", "what had ended was run again");
    assert!(running(&unreadable_at).is_none() && unreadable_at.exists(), "nobody knows what it is, and nobody may remove it");

    machine.kill_kubelet().await;
    machine.delete("stopped", None).await;
    machine.delete("reborn", Some(0)).await;
    let again = machine.create("reborn", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, stopped_pid) = running(&stopped_at).unwrap();
    let (_, reborn_pid) = running(&reborn_at).unwrap();
    let (_, always_pid) = running(&always_at).unwrap();
    machine.start_kubelet().await;
    let back = machine.until("always", "running again", |pod| main_status(pod).is_some_and(|main| main.restart_count == 1)).await;
    assert_eq!(pid(&back), Some(always_pid), "the run that was started alone");
    assert_eq!(main_status(&back).unwrap().last_termination.as_ref().unwrap().reason, "Lost");
    let lost = machine.until("never", "failed", |pod| phase(pod) == PodPhase::Failed).await;
    assert_eq!(terminated(&lost).unwrap().reason, "Lost");
    assert_eq!(phase(&machine.get("succeeded").await.unwrap()), PodPhase::Succeeded);
    assert_eq!(terminated(&machine.get("failed").await.unwrap()).unwrap().exit_code, 3);
    assert_eq!(phase(&machine.get("forgetful").await.unwrap()), PodPhase::Succeeded);
    let crashing = machine.until("crashes", "told", |pod| main_status(pod).is_some_and(|main| main.restart_count > 1)).await;
    assert_eq!(main_status(&crashing).unwrap().last_termination.as_ref().unwrap().exit_code, 5);
    machine.running("unprepared").await;
    machine.running("unreadable").await;
    machine.until_gone("doomed").await;
    machine.until_gone("stopped").await;
    let reborn = machine.running("reborn").await.0;
    assert_eq!(reborn.meta().uid, again.meta().uid);
    assert_eq!(main_status(&reborn).unwrap().restart_count, 0, "another pod of the same name");
    eventually("the end of the one before", || (!is_alive(reborn_pid) && !is_alive(stopped_pid) && !reborn_at.exists()).then_some(()))
        .await;
    let mut told = Vec::new();
    for _ in 0..400 {
        told = events(&machine.client, &always).await;
        if told.iter().any(|(reason, _)| reason == "Lost") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(told.iter().any(|(reason, note)| reason == "Lost" && note.contains("nobody saw how it ended")), "{told:?}");
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_started_alone_are_told_the_same_services_and_ports_as_before() {
    let mut machine = Machine::new().await;
    let ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
    let spec = ServiceSpec { cluster_ip: "127.96.7.7".into(), ports, ..ServiceSpec::default() };
    let mut service = Service { spec: Some(spec), ..Service::default() };
    service.meta_mut().name = "shop".into();
    machine.client.create(service).await.unwrap();
    let out = machine.folder.path().join("out");
    let mut main = script("main", &format!("echo $SHOP_SERVICE_HOST $PORT >> {}; {FOREVER}", out.display()));
    main.ports = vec![ContainerPort { name: "http".into(), ..ContainerPort::default() }];
    // Its service may be known later than the pod; it is told the next time.
    machine.create("first", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("first").await;
    machine.create("web", RestartPolicy::Always, vec![main]).await;
    let port = machine.running("web").await.0.status.unwrap().ports[0].port;
    let line = format!("127.96.7.7 {port}\n");
    eventually("the first run's words", || (std::fs::read_to_string(&out).ok()? == line).then_some(())).await;
    machine.kill_kubelet().await;
    machine.lose_all_processes().await;
    machine.start_kubelet_alone().await;
    eventually("the second run's words", || (std::fs::read_to_string(&out).ok()? == line.repeat(2)).then_some(())).await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_notes_of_running_pods_harm_neither_them_nor_their_kubelet() {
    let mut machine = Machine::new().await;
    machine.create("crashes", RestartPolicy::Always, vec![script("main", "exit 5")]).await;
    let mut damaged = Vec::new();
    for file in ["pod.binpb", "ports.binpb"] {
        for garbage in [&b""[..], b"\x0a", b"{\"runs\": [", &[0xff; 300]] {
            let name = format!("p{}", damaged.len());
            let main = Container { ports: vec![ContainerPort::default()], ..script("main", FOREVER) };
            machine.create(&name, RestartPolicy::Always, vec![main]).await;
            let (pod, pid) = machine.running(&name).await;
            let file = machine.folder_of(&pod).join(file);
            damaged.push((name, pid, pod.status.unwrap().ports, file, garbage));
        }
    }
    let crashes_at = machine.folder_of(&machine.get("crashes").await.unwrap());
    machine.kill_kubelet().await;
    for (.., file, garbage) in &damaged {
        std::fs::write(file, garbage).unwrap();
        std::fs::create_dir_all(machine.root().join("services")).unwrap();
        std::fs::write(machine.root().join("services/default_web.binpb"), garbage).unwrap();
        std::fs::write(machine.root().join("pods/stray"), garbage).unwrap();
    }
    let before = seen(&crashes_at).unwrap()["attempt"].as_u64();
    machine.start_kubelet_alone().await;
    eventually("a restart by a kubelet alone", || (seen(&crashes_at)?["attempt"].as_u64() > before).then_some(())).await;
    for (name, pid, ..) in &damaged {
        assert!(is_alive(*pid), "{name}");
    }
    machine.kill_kubelet().await;

    machine.start_kubelet().await;
    for (name, first, ports, file, garbage) in damaged {
        eventually("its note as new", || (std::fs::read(&file).ok()? != garbage).then_some(())).await;
        let (pod, pid) = machine.running(&name).await;
        assert_eq!((pid, is_alive(pid)), (first, true), "{name}");
        assert_eq!((main_status(&pod).unwrap().restart_count, pod.status.unwrap().ports), (0, ports), "{name}");
    }
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_an_hour_before_a_restart_holds_up_no_pod() {
    let mut machine = Machine::new().await;
    let crashes = machine.create("crashes", RestartPolicy::Always, vec![script("main", "exit 5")]).await;
    machine.create("runs", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.until("crashes", "backing off", |pod| waits_for(pod, "CrashLoopBackOff")).await;
    let (_, runs) = machine.running("runs").await;
    machine.kill_kubelet().await;
    // What the shims have written is of the hour that comes again.
    let behind = Clock::from_fn(|| to_system_time(&Clock::system().now()) - Duration::from_secs(3600));
    let nobody = Client::new("http://127.0.0.1:9").unwrap();
    let before = seen(&machine.folder_of(&crashes)).unwrap()["attempt"].as_u64();
    machine.kubelet = Some(kubelet::start(machine.config(), nobody, behind.clone()).await.unwrap());
    let at = machine.folder_of(&crashes);
    eventually("another run, alone", || (seen(&at)?["attempt"].as_u64() > before).then_some(())).await;
    machine.kill_kubelet().await;
    machine.kubelet = Some(kubelet::start(machine.config(), machine.client.clone(), behind).await.unwrap());
    let told = machine.until("crashes", "told", |pod| main_status(pod).is_some_and(|main| main.restart_count > 1)).await;
    let count = main_status(&told).unwrap().restart_count;
    machine.until("crashes", "started again", |pod| main_status(pod).is_some_and(|main| main.restart_count > count)).await;
    assert_eq!((pid(&machine.get("runs").await.unwrap()), is_alive(runs)), (Some(runs), true));
    machine.delete("runs", None).await;
    machine.until_gone("runs").await;
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_loss_of_power_has_left_of_an_ended_pods_wishes_is_cleared_away() {
    let mut machine = Machine::new().await;
    let job = machine.create("job", RestartPolicy::Never, vec![script("main", "exit 0")]).await;
    machine.until("job", "done", |pod| phase(pod) == PodPhase::Succeeded).await;
    machine.kill_kubelet().await;
    let wishes = machine.folder_of(&job).join("desired.json");
    assert!(wishes.exists());
    std::fs::write(&wishes, "").unwrap();
    machine.start_kubelet().await;
    assert!(!wishes.exists());
    assert_eq!(phase(&machine.get("job").await.unwrap()), PodPhase::Succeeded);
    machine.finish().await;
}
