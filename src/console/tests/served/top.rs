//! What is asked of nodes, where none is connected.

use super::*;

#[tokio::test]
async fn top_says_why_there_are_no_figures_and_what_is_not_there() {
    let served = Served::start().await;
    let empty = served.run("top pod").await;
    assert_eq!((empty.code, empty.out.as_str(), empty.err.as_str()), (0, "", "No resources found\n"));
    served.apply("{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: main, command: [sleep]}]}}").await;
    let waiting = served.run("top pod").await;
    assert_eq!(waiting.code, 1, "nothing of what was asked for is known");
    let expected = "NAME   CPU(cores)   MEMORY(bytes)   DISK(bytes)\nweb    <unknown>    <unknown>       <unknown>\n";
    assert_eq!(waiting.out, expected);
    assert_eq!(waiting.err, "no figures of pod/web: it has no node yet; its events say why\n");
    let containers = served.run("top pod web --containers -A --no-headers").await;
    assert_eq!(containers.code, 2, "a name is of one namespace: {}", containers.err);
    let containers = served.run("top pod -A --containers --no-headers").await;
    assert_eq!(containers.out, "default   web   <unknown>   <unknown>   <unknown>\n");
    let missing = served.run("top node nobody").await;
    assert_eq!((missing.code, missing.err.as_str()), (1, "error: there is no Node \"nobody\"\n"));
    assert_eq!(served.run("top").await.code, 2);
}

#[tokio::test]
async fn port_forward_says_at_once_what_can_not_be_reached() {
    let served = Served::start().await;
    check(&served.run("port-forward nobody 80").await, 1, "there is no Pod \"nobody\"");
    let manifest = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, command: [sleep], ports: [{{name: web}}]}}]}}}}"
        )
    };
    served.apply(&manifest("a")).await;
    check(&served.run("port-forward a http").await, 1, "pod a has no port \"http\"");
    served.apply(&manifest("b")).await;
    let mut over: Pod = served.client.get("default", "b").await.expect("it was applied");
    over.status = Some(PodStatus { phase: PodPhase::Succeeded.into(), ..Default::default() });
    served.client.update_status(vec![over.into_object()]).await.expect("an answer").remove(0).expect("written");
    check(&served.run("port-forward b web").await, 1, "pod b has ended");
}
