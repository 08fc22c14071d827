//! What happens while all of the root folder is elsewhere.

use bluebird::api::v1::RestartPolicy;
use bluebird::kubelet;
use bluebird::time::Clock;

use crate::machine::{FOREVER, Machine, main_status, pid, script};
use crate::processes::{eventually, is_alive};

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_starts_while_its_root_folder_is_away_says_so_and_ends_no_pod() {
    let mut machine = Machine::new().await;
    machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, process) = machine.running("web").await;
    machine.kill_kubelet().await;
    let (root, elsewhere) = (machine.root(), machine.folder.path().join("elsewhere"));
    std::fs::rename(&root, &elsewhere).unwrap();
    // Also an empty folder on which a disk was mounted.
    for is_there in [false, true] {
        if is_there {
            std::fs::create_dir(&root).unwrap();
        }
        let refusal = kubelet::start(machine.config(), machine.client.clone(), Clock::system()).await.unwrap_err();
        assert!(refusal.to_string().contains("is its disk not mounted?"), "{refusal}");
        assert_eq!((root.exists(), is_alive(process)), (is_there, true));
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&elsewhere, &root).unwrap();
    machine.start_kubelet().await;
    // When this one runs, the other was taken up.
    machine.create("late", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("late").await;
    let web = machine.get("web").await.unwrap();
    assert_eq!((pid(&web), is_alive(process), main_status(&web).unwrap().restart_count), (Some(process), true, 0));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_folder_that_lost_only_its_id_is_still_its_pods() {
    let mut machine = Machine::new().await;
    machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, process) = machine.running("web").await;
    machine.kill_kubelet().await;
    std::fs::remove_file(machine.root().join("instance-id")).unwrap();
    machine.start_kubelet().await;
    machine.create("late", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    machine.running("late").await;
    let web = machine.get("web").await.unwrap();
    assert_eq!((pid(&web), is_alive(process)), (Some(process), true));
    machine.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_while_its_root_folder_is_away_leaves_no_folder_when_that_is_back() {
    let machine = Machine::new().await;
    let pod = machine.create("web", RestartPolicy::Always, vec![script("main", FOREVER)]).await;
    let (_, process) = machine.running("web").await;
    let (root, elsewhere) = (machine.root(), machine.folder.path().join("elsewhere"));
    std::fs::rename(&root, &elsewhere).unwrap();
    machine.delete("web", None).await;
    machine.until_gone("web").await;
    assert!(!is_alive(process));
    std::fs::rename(&elsewhere, &root).unwrap();
    eventually("the end of its folder", || (!machine.folder_of(&pod).exists()).then_some(())).await;
    machine.finish().await;
}
