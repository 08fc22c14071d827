use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;

use super::{Config, DEFAULT_MAX_PODS, MIN_LOG_SIZE, node};
use crate::api::quantity;
use crate::error::{Error, Result};

/// Runs the pods that are bound to this node, and leads connections to services.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubelet", version)]
pub struct Arguments {
    /// The apiserver: http://HOST:PORT or unix:/PATH; several of one cluster with commas between. One is used until it fails, then the next.
    #[arg(long, env = "BLUEBIRD_SERVER", default_value = "http://127.0.0.1:7443", value_name = "URL,…")]
    pub server: String,
    /// The node's name, unique in the cluster [default: the machine's name]
    #[arg(long, env = "BLUEBIRD_NODE_NAME")]
    node_name: Option<String>,
    /// Where pods, their logs and this kubelet's identity are kept; each kubelet of a machine needs its own [default: a folder of the node's name in the
    /// user's data folder]
    #[arg(long, env = "BLUEBIRD_ROOT_DIR")]
    root_dir: Option<PathBuf>,
    /// The address at which other nodes reach this one's pods [default: the one that leads to the apiserver]
    #[arg(long, env = "BLUEBIRD_NODE_IP")]
    node_ip: Option<IpAddr>,
    /// A label of the node; may be repeated, or list several with commas.
    #[arg(long = "label", env = "BLUEBIRD_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// How many pods the scheduler may place here. A pod costs about a megabyte besides what its processes use.
    #[arg(long, env = "BLUEBIRD_MAX_PODS", default_value_t = DEFAULT_MAX_PODS)]
    max_pods: u32,
    /// When a file of a container's log is full: a new one is begun.
    #[arg(long, env = "BLUEBIRD_LOG_MAX_SIZE", default_value = "10Mi", value_name = "BYTES", value_parser = log_size)]
    log_max_size: u64,
    /// How many files of a container's logs are kept, over all its runs. The disk that its logs take is bounded by this times --log-max-size.
    #[arg(long, env = "BLUEBIRD_LOG_MAX_FILES", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    log_max_files: u32,
    /// A folder of manifests whose pods run here whether there is an apiserver or not: files *.yaml, *.yml and *.json, watched [default: none]
    #[arg(long, env = "BLUEBIRD_STATIC_PODS", value_name = "DIR")]
    static_pods: Option<PathBuf>,
    /// Don't make services reachable on this machine.
    #[arg(long, env = "BLUEBIRD_NO_ROUTES")]
    no_routes: bool,
    /// The executable that guards a pod's processes as `SHIM shim FOLDER` [default: this one]
    #[arg(long, env = "BLUEBIRD_SHIM")]
    shim: Option<PathBuf>,
}

impl Arguments {
    /// What they mean.
    ///
    /// # Errors
    /// Invalid when there is no data folder and no other was named.
    pub fn config(&self) -> Result<Config> {
        let name = self.node_name.clone().unwrap_or_else(node::default_node_name);
        let root_dir = match &self.root_dir {
            Some(folder) => folder.clone(),
            None => directories::ProjectDirs::from("", "", "bluebird")
                .map(|folders| folders.data_local_dir().join("nodes").join(&name))
                .ok_or_else(|| Error::invalid("", "this user has no data folder; name one with --root-dir"))?,
        };
        let defaults = Config::new(name, root_dir);
        Ok(Config {
            node_ip: Some(self.node_ip.unwrap_or_else(|| node::address_towards(&self.server))),
            labels: self.labels.iter().cloned().collect(),
            shim_program: self.shim.clone().unwrap_or(defaults.shim_program),
            routes: !self.no_routes,
            static_pods: self.static_pods.clone(),
            max_pods: self.max_pods,
            log_max_size: self.log_max_size,
            log_max_files: self.log_max_files,
            node_name: defaults.node_name,
            root_dir: defaults.root_dir,
        })
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

fn log_size(text: &str) -> Result<u64, String> {
    match quantity::bytes(text) {
        Ok(bytes) if bytes >= MIN_LOG_SIZE => Ok(bytes),
        Ok(_) => Err(format!("a log file has at least {MIN_LOG_SIZE} bytes")),
        Err(_) => Err("a size is a number of bytes, also as 64Ki, 10Mi or 1Gi".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_has_a_help_line_and_an_environment_variable() {
        let command = Arguments::command();
        command.clone().debug_assert();
        for argument in command.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str())) {
            assert!(argument.get_help().is_some() && argument.get_env().is_some(), "{argument}");
        }
    }

    #[test]
    fn a_log_file_is_large_enough_for_its_records() {
        let config = |arguments: &[&str]| Arguments::try_parse_from(["kubelet", "--root-dir", "r"].iter().chain(arguments));
        let given = config(&["--log-max-size", "1Mi", "--log-max-files", "3"]).unwrap().config().unwrap();
        assert_eq!((given.log_max_size, given.log_max_files), (1 << 20, 3));
        let default = config(&[]).unwrap().config().unwrap();
        assert_eq!((default.log_max_size, default.log_max_files), (10 << 20, 5));
        for refused in [["--log-max-size", "1Ki"], ["--log-max-size", "many"], ["--log-max-files", "1"]] {
            assert!(config(&refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn labels_may_be_repeated_or_listed() {
        let arguments = Arguments::parse_from(["kubelet", "--root-dir", "r", "--label", "a=1,b=2", "--label", "c=x=y"]);
        let labels: Vec<_> = arguments.config().unwrap().labels.into_iter().collect();
        assert_eq!(labels, [("a", "1"), ("b", "2"), ("c", "x=y")].map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(Arguments::try_parse_from(["kubelet", "--label", "a"]).is_err());
    }
}
