use super::*;

const LIMITS: Limits = Limits { requests: 10, burst: 20, watches: 2 };

fn accounts(limits: Limits) -> Accounts {
    Accounts::new(limits)
}

fn address(number: u32) -> Origin {
    Origin::from(IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

/// How many requests pass at once.
fn passing(account: &Account) -> usize {
    (0..1_000).take_while(|_| account.request().is_ok()).count()
}

#[track_caller]
fn wait(account: &Account) -> Duration {
    match account.request() {
        Err(Error::Exhausted { retry_after: Some(wait), .. }) => wait,
        other => panic!("not refused with a time to wait, but {other:?}"),
    }
}

#[test]
fn a_client_is_an_address_whatever_the_port_and_a_network_where_a_machine_has_many() {
    let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
    assert_eq!(of("127.0.0.1"), Origin::Machine);
    assert_eq!(of("127.9.8.7"), Origin::Machine);
    assert_eq!(of("::1"), Origin::Machine);
    assert_eq!(of("::ffff:127.0.0.1"), Origin::Machine);
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::"));
    assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    assert_eq!(of("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_then_as_many_a_second_as_there_may_be_however_often_is_asked() {
    let account = accounts(LIMITS).of(address(1));
    assert_eq!(passing(&account), 20);
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passing(&account), 10, "what was refused is not counted");
    }
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(passing(&account), 20, "a long pause gives no more than a burst");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_as_it_was_told_passes_and_not_all_are_told_the_same() {
    let account = accounts(LIMITS).of(address(1));
    assert_eq!(passing(&account), 20);
    let mut waits: Vec<_> = (0..20).map(|_| wait(&account)).collect();
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 10 && waits[0] >= SHORTEST_WAIT && waits[waits.len() - 1] <= 2 * SHORTEST_WAIT, "{waits:?}");
    tokio::time::advance(waits[0]).await;
    assert_eq!(account.request(), Ok(()));
    let slow = accounts(Limits { requests: 1, burst: 1, watches: 0 }).of(address(1));
    assert_eq!(passing(&slow), 1);
    let told = wait(&slow);
    assert!(told >= Duration::from_secs(1) && told <= Duration::from_secs(2), "{told:?}");
    tokio::time::advance(told).await;
    assert_eq!(slow.request(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_use_each_others_limits_up_and_connections_of_one_share_them() {
    let accounts = accounts(LIMITS);
    let (one, same, other) = (accounts.of(address(1)), accounts.of(address(1)), accounts.of(address(2)));
    assert_eq!((passing(&one), passing(&same), passing(&other)), (20, 0, 20));
    let node = accounts.of(Origin::Node("n1".into()));
    assert_eq!(passing(&node), 20);
    let watches = [one.begin_watch().unwrap(), same.begin_watch().unwrap()];
    let refused = one.begin_watch().unwrap_err();
    assert!(
        matches!(&refused, Error::Exhausted { message, retry_after: Some(_) } if message.contains("10.0.0.1 has 2 watches")),
        "{refused:?}"
    );
    assert!(other.begin_watch().is_ok());
    drop(watches);
    assert!(one.begin_watch().is_ok(), "a watch that has ended makes room");
}

#[tokio::test(start_paused = true)]
async fn zero_is_no_limit() {
    let account = accounts(Limits::new(0, 0)).of(address(1));
    assert_eq!(passing(&account), 1_000);
    let watches: Result<Vec<_>> = (0..100_000).map(|_| account.begin_watch()).collect();
    assert_eq!(watches.unwrap().len(), 100_000);
    assert_eq!(account.watches.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn connecting_again_brings_no_new_burst_and_nobody_is_remembered_for_longer_than_that_takes() {
    let accounts = accounts(LIMITS);
    assert_eq!(passing(&accounts.of(address(1))), 20);
    accounts.keep_up(Instant::now());
    assert_eq!(passing(&accounts.of(address(1))), 0);
    accounts.keep_up(Instant::now());
    tokio::time::advance(Duration::from_secs(1)).await;
    accounts.keep_up(Instant::now());
    assert_eq!(passing(&accounts.of(address(1))), 10);
    let held = accounts.of(address(2));
    accounts.keep_up(Instant::now());
    tokio::time::advance(Duration::from_secs(2)).await;
    accounts.keep_up(Instant::now());
    let known: Vec<_> = accounts.lock().keys().cloned().collect();
    assert_eq!(known, [address(2)], "who has gone is forgotten, and who is there is not");
    assert_eq!(passing(&held), 20);
}

#[tokio::test(start_paused = true)]
async fn a_million_addresses_take_bounded_memory_and_cost_those_who_stay_nothing() {
    let accounts = accounts(LIMITS);
    let stays = accounts.of(Origin::Machine);
    assert_eq!(passing(&stays), 20);
    let mut most = 0;
    for number in 0..1_000_000 {
        assert_eq!(accounts.of(address(number)).request(), Ok(()));
        most = most.max(accounts.lock().len());
    }
    assert!(most <= MOST, "{most}");
    assert!(std::mem::size_of::<(Origin, Entry)>() + std::mem::size_of::<Account>() <= 256, "10 MiB for all of them");
    assert!(Arc::ptr_eq(&stays, &accounts.of(Origin::Machine)) && passing(&stays) == 0);
    accounts.keep_up(Instant::now());
    tokio::time::advance(Duration::from_secs(3)).await;
    accounts.keep_up(Instant::now());
    let entries = accounts.lock();
    assert!(entries.len() == 1 && entries.capacity() < 10_000, "{} of {}", entries.len(), entries.capacity());
}

#[test]
fn many_threads_that_hammer_get_no_more_than_one_would() {
    let account = accounts(Limits { requests: 1, burst: 5_000, watches: 100 }).of(Origin::Socket);
    let began = Instant::now();
    let hammer = || (0..20_000).filter(|_| account.request().is_ok()).count();
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(hammer)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let more = began.elapsed().as_secs() as usize + 1;
    assert!((5_000..=5_000 + more).contains(&passed), "{passed}");
}
