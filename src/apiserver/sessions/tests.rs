use super::*;

const GRACE: Duration = Duration::from_secs(15);

fn answers(opened: &mut Opened) -> Vec<u64> {
    let next = || match opened.outgoing.try_recv() {
        Ok(Message::RoutesAppliedEverywhere(RoutesAppliedEverywhere { revision })) => Some(revision),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn a_second_kubelet_of_a_name_is_refused_and_a_newer_session_of_the_same_one_replaces_the_old() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let mut first = sessions.open("n1", "a", true, now).unwrap();
    assert!(matches!(sessions.open("n1", "b", true, now), Err(Error::Precondition(_))));
    assert!(first.end.try_recv().is_err(), "the refused one must not disturb the live one");
    let second = sessions.open("n1", "a", true, now).unwrap();
    assert!(matches!(first.end.try_recv(), Ok(Error::Superseded(_))));
    sessions.close("n1", first.id, now);
    assert!(sessions.check_instance("n1", "b").is_err(), "the end of the old session must not end the new one");
    sessions.close("n1", second.id, now);
    sessions.check_instance("n1", "b").unwrap();
}

#[test]
fn routes_are_applied_everywhere_when_the_slowest_live_router_has_them() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let mut one = sessions.open("n1", "a", true, now).unwrap();
    let mut two = sessions.open("n2", "b", true, now).unwrap();
    let idle = sessions.open("n3", "c", false, now).unwrap();
    sessions.await_routes("n1", one.id, Revision(5));
    sessions.await_routes("n1", one.id, Revision(7));
    sessions.routes_applied("n1", one.id, Revision(9));
    sessions.routes_applied("n3", idle.id, Revision(1));
    assert_eq!(answers(&mut one), [0; 0]);
    sessions.routes_applied("n2", two.id, Revision(6));
    assert_eq!(answers(&mut one), [5]);
    sessions.await_routes("n2", two.id, Revision(6));
    assert_eq!(answers(&mut two), [6], "what holds already is answered at once");
    sessions.close("n2", two.id, now);
    assert_eq!(answers(&mut one), [7], "a router that is gone is not waited for");
}

#[test]
fn without_routers_nobody_is_waited_for() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let mut one = sessions.open("n1", "a", false, now).unwrap();
    sessions.await_routes("n1", one.id, Revision(5));
    assert_eq!(answers(&mut one), [5]);
}

#[test]
fn a_silent_session_ends_and_its_node_is_silent_until_that_is_settled() {
    let (sessions, start) = (Sessions::default(), Instant::now());
    let mut opened = sessions.open("n1", "a", false, start).unwrap();
    sessions.heard("n1", opened.id, start + GRACE / 2);
    assert_eq!(sessions.silent(start + GRACE, GRACE), []);
    let late = start + GRACE * 2;
    assert_eq!(sessions.silent(late, GRACE), [Silent { node: "n1".into(), reason: SilentReason::NodeSilent }]);
    assert!(matches!(opened.end.try_recv(), Ok(Error::Timeout(_))));
    assert!(sessions.is_silent("n1", late, GRACE));
    sessions.settle("n1", late, GRACE);
    assert_eq!(sessions.silent(late, GRACE), []);
}

#[test]
fn a_node_that_comes_back_within_the_grace_period_is_not_silent() {
    let (sessions, start) = (Sessions::default(), Instant::now());
    sessions.expect("n1", start);
    let opened = sessions.open("n1", "a", false, start + GRACE / 2).unwrap();
    assert_eq!(sessions.silent(start + GRACE, GRACE), []);
    sessions.close("n1", opened.id, start + GRACE);
    assert_eq!(sessions.silent(start + GRACE * 3 / 2, GRACE), []);
    let lost = Silent { node: "n1".into(), reason: SilentReason::SessionLost };
    assert_eq!(sessions.silent(start + GRACE * 2, GRACE), [lost]);
}

#[test]
fn a_kubelet_that_never_reads_its_session_loses_it() {
    let (sessions, now) = (Sessions::default(), Instant::now());
    let mut opened = sessions.open("n1", "a", false, now).unwrap();
    for _ in 0..OUTGOING_MESSAGES {
        sessions.open_tunnel("n1", OpenTunnel::default()).unwrap();
    }
    assert!(opened.end.try_recv().is_err());
    sessions.open_tunnel("n1", OpenTunnel::default()).unwrap();
    assert!(matches!(opened.end.try_recv(), Ok(Error::Exhausted { .. })));
}

#[test]
fn a_tunnel_to_a_node_without_a_session_is_unavailable() {
    assert!(matches!(Sessions::default().open_tunnel("n1", OpenTunnel::default()), Err(Error::NotDone(_))));
}
