use std::path::PathBuf;

use crate::store::{EtcdOptions, Tls};

/// Where the state is kept.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// Where the cluster's state is kept: a folder (as --data-dir), or an etcd that any number of apiservers share: etcd://HOST:PORT[,HOST:PORT…]
    #[arg(long, env = "BLUEBIRD_STORE", value_name = "FOLDER|URL")]
    store: Option<String>,
    /// What all keys in the etcd begin with. They are BlueBird's alone; another cluster in the same etcd needs another prefix
    #[arg(long, env = "BLUEBIRD_ETCD_PREFIX", value_name = "PREFIX", default_value = EtcdOptions::DEFAULT_PREFIX, value_parser = prefix)]
    etcd_prefix: String,
    /// Speak TLS with the etcd: a file with the certificates, as PEM, of those who may have signed its certificate
    #[arg(long, env = "BLUEBIRD_ETCD_CA", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,
    /// Our own certificate for the etcd, as PEM
    #[arg(long, env = "BLUEBIRD_ETCD_CERT", value_name = "FILE", requires = "etcd_ca", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// The key of that certificate, as PEM
    #[arg(long, env = "BLUEBIRD_ETCD_KEY", value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// A user of the etcd, if it wants one
    #[arg(long, env = "BLUEBIRD_ETCD_USERNAME", value_name = "NAME")]
    etcd_username: Option<String>,
    /// The user's password. Give it by the variable or a file: everybody on the machine can read flags
    #[arg(long, env = "BLUEBIRD_ETCD_PASSWORD", value_name = "PASSWORD", hide_env_values = true, requires = "etcd_username")]
    etcd_password: Option<String>,
    /// A file with the user's password
    #[arg(long, env = "BLUEBIRD_ETCD_PASSWORD_FILE", value_name = "FILE", requires = "etcd_username", conflicts_with = "etcd_password")]
    etcd_password_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The folder, or the etcd; neither when nothing was said.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn into_place(self) -> Result<(Option<PathBuf>, Option<EtcdOptions>), String> {
        let Some((scheme, rest)) = self.store.as_deref().and_then(|store| store.split_once("://")) else {
            return self.folder().map(|folder| (folder, None));
        };
        if scheme != "etcd" {
            return Err(format!("--store {scheme}://… is no store; write a folder, or etcd://HOST:PORT[,HOST:PORT…]"));
        }
        let members = members(rest)?;
        let etcd = EtcdOptions { prefix: self.etcd_prefix.clone(), tls: self.tls()?, login: self.login()?, ..EtcdOptions::new(members) };
        Ok((None, Some(etcd)))
    }

    fn folder(&self) -> Result<Option<PathBuf>, String> {
        if let Some(flag) = self.first_for_etcd() {
            return Err(format!(
                "{flag} is for an etcd, but the state is kept in a folder; add --store etcd://HOST:PORT, or leave the flag and its variable out"
            ));
        }
        match self.store.as_deref() {
            Some("") => Err("--store must be a folder or etcd://HOST:PORT".to_owned()),
            Some(store) if store.starts_with("etcd:") || members(store).is_ok() => {
                Err(format!("--store {store} looks like an etcd: write etcd://HOST:PORT; for a folder of that name write ./{store}"))
            }
            folder => Ok(folder.map(PathBuf::from)),
        }
    }

    /// The first flag that was given and means something only with an etcd.
    fn first_for_etcd(&self) -> Option<&'static str> {
        let given = [
            ("--etcd-prefix", self.etcd_prefix != EtcdOptions::DEFAULT_PREFIX),
            ("--etcd-ca", self.etcd_ca.is_some()),
            ("--etcd-username", self.etcd_username.is_some()),
        ];
        given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    fn tls(&self) -> Result<Option<Tls>, String> {
        let Some(ca) = &self.etcd_ca else { return Ok(None) };
        let identity = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(Some(Tls { ca: read(ca)?, identity }))
    }

    fn login(&self) -> Result<Option<(String, String)>, String> {
        let Some(username) = self.etcd_username.clone() else { return Ok(None) };
        let password = match (&self.etcd_password, &self.etcd_password_file) {
            (Some(password), _) => password.clone(),
            (None, Some(file)) => {
                let text = String::from_utf8(read(file)?).map_err(|_| format!("{} is no text", file.display()))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => {
                return Err(
                    "--etcd-username needs a password: the variable BLUEBIRD_ETCD_PASSWORD, or --etcd-password-file FILE".to_owned()
                );
            }
        };
        Ok(Some((username, password)))
    }
}

fn read(file: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("can't read {}: {error}", file.display()))
}

fn members(list: &str) -> Result<Vec<String>, String> {
    let member = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap_or_default();
        let is_address = !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0) && !address.contains(['/', '@', ' ', '?', '#']);
        let wrong = || format!("{address:?} in --store is no address of an etcd: write etcd://HOST:PORT[,HOST:PORT…]");
        is_address.then(|| address.to_owned()).ok_or_else(wrong)
    };
    list.split(',').map(|address| member(address.trim())).collect()
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = text.len() <= EtcdOptions::MAX_PREFIX && text.ends_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or_else(|| format!("must end with / and have at most {} visible characters", EtcdOptions::MAX_PREFIX))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use crate::apiserver::{Args, Config};

    fn config(flags: &[&str]) -> Result<Config, String> {
        let flags = ["apiserver"].iter().chain(flags);
        Args::try_parse_from(flags).map_err(|error| error.to_string())?.into_config()
    }

    fn etcd(flags: &[&str]) -> crate::apiserver::EtcdOptions {
        config(flags).unwrap().etcd.expect("an etcd")
    }

    #[test]
    fn a_store_is_a_folder_or_an_etcd_of_one_member_or_more() {
        let folder = config(&["--store", "/var/lib/x"]).unwrap();
        assert_eq!((folder.data_dir.as_path(), folder.etcd.is_none()), (Path::new("/var/lib/x"), true));
        let plain = etcd(&["--store", "etcd://a:2379, [::1]:2380"]);
        assert_eq!((plain.members, plain.prefix.as_str()), (vec!["a:2379".into(), "[::1]:2380".into()], "/bluebird/"));
        assert!(plain.tls.is_none() && plain.login.is_none());
        assert_eq!(etcd(&["--store", "etcd://a:2379", "--etcd-prefix", "/two/"]).prefix, "/two/");
        for wrong in ["", "etcd://", "etcd://a", "etcd://a:0", "etcd://a:1,", "etcd://a:1/x", "etcd://u@a:1", "redis://a:1"] {
            assert!(config(&["--store", wrong]).is_err(), "{wrong}");
        }
        for wrong in ["", "/a", "/ä/", "/a b/", &format!("/{}/", "x".repeat(64))] {
            assert!(config(&["--store", "etcd://a:1", "--etcd-prefix", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_without_its_scheme_and_flags_that_mean_nothing_are_refused() {
        for store in ["etcd:/a:2379", "etcd:a", "a:2379", "[::1]:2379", "a:1,b:2"] {
            assert!(config(&["--store", store]).is_err_and(|why| why.contains("etcd://")), "{store}");
        }
        for folder in ["./a:2379", "data", "C:/data", r"C:\data", "a:b"] {
            assert_eq!(config(&["--store", folder]).unwrap().data_dir, Path::new(folder));
        }
        for flags in [["--etcd-prefix", "/two/"], ["--etcd-ca", "ca.pem"]] {
            assert!(config(&flags).is_err_and(|why| why.contains(flags[0])), "{flags:?}");
            assert!(config(&[&["--store", "data"], &flags[..]].concat()).is_err_and(|why| why.contains(flags[0])), "{flags:?}");
        }
        assert!(config(&["--data-dir", "other", "--store", "data"]).is_err_and(|why| why.contains("--data-dir")));
    }

    #[test]
    fn certificates_and_passwords_come_from_files_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, cert, key, password) = (file("ca", "A"), file("cert", "B"), file("key", "C"), file("password", "s e\n"));
        let base = ["--store", "etcd://a:1", "--etcd-ca", &ca];
        assert!(etcd(&base).tls.is_some_and(|tls| tls.ca == b"A" && tls.identity.is_none()));
        let full =
            [&base[..], &["--etcd-cert", &cert, "--etcd-key", &key, "--etcd-username", "u", "--etcd-password-file", &password]].concat();
        let full = etcd(&full);
        assert_eq!(full.login, Some(("u".into(), "s e".into())));
        assert_eq!(full.tls.as_ref().and_then(|tls| tls.identity.clone()), Some((b"B".to_vec(), b"C".to_vec())));
        assert!(!format!("{full:?}").contains("s e"));
        for wrong in
            [&["--etcd-cert", &cert][..], &["--etcd-username", "u"], &["--etcd-password-file", &password], &["--etcd-ca", "/nowhere"]]
        {
            assert!(config(&[&["--store", "etcd://a:1"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }
}
