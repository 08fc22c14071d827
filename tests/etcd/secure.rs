//! An etcd that wants a user, or speaks TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bluebird::api::v1::Lease;
use bluebird::apiserver::{self, Config, EtcdOptions, Listen, Tls};
use bluebird::client::Client;
use bluebird::error::Error;
use bluebird::testing::Etcd;
use bluebird::time::Clock;

use super::fleet::{lease, soon};

fn config(etcd: &Etcd) -> Config {
    let mut config = Config::new("/nowhere", Listen::LOCAL);
    config.etcd = Some(EtcdOptions::new(etcd.addresses().iter().map(ToString::to_string)));
    config
}

async fn refused(config: Config) -> String {
    match apiserver::start(config, Clock::system()).await {
        Ok(_) => panic!("it was let in"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_with_users_lets_in_who_has_the_password_and_goes_on_when_tokens_expire() {
    let Some(etcd) = Etcd::start(&["--auth-token-ttl", "1"]).await else { return };
    for words in ["user add root:secret", "user grant-role root root", "auth enable"] {
        assert!(etcd.control(&words.split(' ').collect::<Vec<_>>()).status.success(), "{words}");
    }
    let with = |login: Option<(&str, &str)>| {
        let mut config = config(&etcd);
        config.etcd.as_mut().unwrap().login = login.map(|(name, password)| (name.to_owned(), password.to_owned()));
        config
    };
    assert!(refused(with(None)).await.contains("--etcd-username"));
    let wrong = refused(with(Some(("root", "wrong")))).await;
    assert!(wrong.contains("doesn't let user \"root\" in") && !wrong.contains("wrong"), "{wrong}");

    let apiserver = apiserver::start(with(Some(("root", "secret"))), Clock::system()).await.unwrap_or_else(|error| panic!("{error}"));
    let client = Client::new(&apiserver.url()).unwrap();
    for number in 0..3 {
        let name = format!("l{number}");
        client.create(lease(&name, "a")).await.unwrap();
        client.get::<Lease>("", &name).await.unwrap();
        // Longer than a token lives.
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }
    apiserver.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_etcd_begins_to_refuse_goes_on_when_it_is_let_in_again() {
    let Some(etcd) = Etcd::start(&[]).await else { return };
    let control = |words: &str| {
        let output = etcd.control(&words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut with_user = config(&etcd);
    with_user.etcd.as_mut().unwrap().login = Some(("root".to_owned(), "secret".to_owned()));
    let [without, with] = [config(&etcd), with_user].map(|config| apiserver::start(config, Clock::system()));
    let [without, with] = [without.await, with.await].map(|started| started.unwrap_or_else(|error| panic!("{error}")));
    let [without_user, with_user] = [&without, &with].map(|apiserver| Client::new(&apiserver.url()).unwrap());
    without_user.create(lease("a", "a")).await.unwrap();

    for words in ["user add root:secret", "user grant-role root root", "auth enable"] {
        control(words);
    }
    let refused = without_user.create(lease("b", "a")).await.unwrap_err();
    assert!(matches!(&refused, Error::NotDone(why) if why.contains("--etcd-username")), "{refused:?}");
    soon("a write by who has the password", || with_user.create(lease("b", "a"))).await;
    control("--user=root:secret auth disable");
    soon("a read", || without_user.get::<Lease>("", "b")).await;
    soon("a write", || without_user.create(lease("c", "a"))).await;
    for apiserver in [without, with] {
        apiserver.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_with_tls_is_spoken_to_with_our_certificate_and_only_if_its_own_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    if let Err(why) = certificates(folder.path()) {
        println!("SKIPPED: this needs openssl to make certificates ({why})");
        return;
    }
    let (ca, cert, key) = (path("ca.crt"), path("our.crt"), path("our.key"));
    let flags = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let Some(etcd) = Etcd::start(&flags).await else { return };
    let read = |file: &str| std::fs::read(file).unwrap();
    let with = |ca: &str, identity: bool| {
        let mut config = config(&etcd);
        let identity = identity.then(|| (read(&cert), read(&key)));
        config.etcd.as_mut().unwrap().tls = Some(Tls { ca: read(ca), identity });
        config
    };
    let apiserver = apiserver::start(with(&ca, true), Clock::system()).await.unwrap_or_else(|error| panic!("{error}"));
    let client = Client::new(&apiserver.url()).unwrap();
    client.create(lease("a", "a")).await.unwrap();
    apiserver.shutdown().await;

    // An etcd that can't be reached is waited for; one whose certificate is wrong will not have another one soon.
    let begun = std::time::Instant::now();
    let stranger = refused(with(&path("other.crt"), true)).await;
    assert!(stranger.contains("can't speak TLS") && stranger.contains("certificate"), "{stranger}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it was tried for {:?}", begun.elapsed());

    let (nobody, plain) = tokio::join!(refused(with(&ca, false)), refused(config(&etcd)));
    assert!(nobody.contains("can't use etcd://"), "{nobody}");
    assert!(plain.contains("can't use etcd://"), "{plain}");
}

/// A CA, a certificate for 127.0.0.1 by it, and another CA.
fn certificates(folder: &Path) -> Result<(), String> {
    std::fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").map_err(|error| error.to_string())?;
    for line in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.crt",
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=other -keyout other.key -out other.crt",
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=bluebird -keyout our.key -out our.csr",
        "x509 -req -in our.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out our.crt",
    ] {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(())
}
