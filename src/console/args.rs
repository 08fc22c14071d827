//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// Runs and routes workloads on Linux, Windows and macOS machines.
#[derive(Debug, Parser)]
#[command(name = "bluebird", version, after_help = EXIT_CODES, max_term_width = 120)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) target: Target,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The apiserver that is asked if none is named.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:7443";

/// Where to look.
#[derive(Args, Debug)]
pub(super) struct Target {
    /// The apiserver: http://HOST:PORT or unix:/PATH; several of one cluster with commas between
    #[arg(long, global = true, env = "BLUEBIRD_SERVER", default_value = DEFAULT_SERVER, value_name = "URL,…")]
    pub(super) server: String,
    /// The namespace of objects that name none, `default` if not given
    #[arg(short, long, global = true, env = "BLUEBIRD_NAMESPACE", value_name = "NAME")]
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring up a cluster on this machine and run manifests in it
    Up(Up),
    /// Make objects be as manifests say
    Apply(Apply),
    /// Show objects
    Get(Get),
    /// Show everything about objects, with their events
    Describe(Describe),
    /// Delete objects
    Delete(Delete),
    /// Print what a container of a pod wrote
    Logs(Logs),
    /// Run a command in a container of a pod
    Exec(Exec),
    /// Make ports of a pod or a service reachable on this machine
    PortForward(PortForward),
    /// Show what nodes or pods use: processors, memory, disk
    #[command(subcommand)]
    Top(Top),
    /// Write all objects to a file, for `apiserver restore`, while the cluster goes on
    Backup(Backup),
    /// Ask a node to show that it keeps every promise that the spec of a pod makes
    Conformance(Conformance),
    /// Look into a store's folder or a backup, without an apiserver
    #[command(subcommand)]
    Store(StoreCommand),
    /// Tell what a kind or a field is for
    Explain(Explain),
    /// Print a completion script, for instance: source <(bluebird completion bash)
    Completion {
        /// The shell to complete in
        shell: Shell,
    },
    /// Print the versions of this program and of what the server is
    Version,
    /// Serve HTTP and answer with who answered, for examples
    Echo(Echo),
}

#[derive(Args, Debug)]
pub(super) struct Up {
    /// Manifests to apply: files, folders, or - for standard input
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<String>,
    /// Where the cluster keeps everything; a folder of the user's own if not given
    #[arg(long, env = "BLUEBIRD_DATA_DIR", value_name = "FOLDER")]
    pub(super) data_dir: Option<PathBuf>,
    /// Where the apiserver listens
    #[arg(long, env = "BLUEBIRD_LISTEN", default_value = "127.0.0.1:7443", value_name = "ADDRESS")]
    pub(super) listen: String,
    /// The range that services have their addresses from, 127.96.0.0/12 if not given
    #[arg(long, env = "BLUEBIRD_SERVICE_CIDR", value_name = "CIDR")]
    pub(super) service_cidr: Option<String>,
    /// Fail, and stop everything, unless all pods of the manifests become ready in time
    #[arg(long)]
    pub(super) wait: bool,
    /// Stop everything once all pods are ready; fail if they can't become so in time
    #[arg(long)]
    pub(super) exit: bool,
    /// How long --wait and --exit wait, for instance 90s or 5m
    #[arg(long, default_value = "60s", value_parser = super::age::parse_duration, value_name = "TIME")]
    pub(super) timeout: std::time::Duration,
}

/// Which files to read.
#[derive(Args, Debug)]
pub(super) struct Files {
    /// Manifests: a file, a folder of .yaml, .yml and .json files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(super) files: Vec<String>,
    /// Read folders within folders, too
    #[arg(short = 'R', long)]
    pub(super) recursive: bool,
}

#[derive(Args, Debug)]
pub(super) struct Apply {
    #[command(flatten)]
    pub(super) files: Files,
    #[command(flatten)]
    pub(super) how: HowToApply,
}

/// How objects are made as manifests say.
#[derive(Args, Clone, Debug)]
pub(super) struct HowToApply {
    /// Who applies: what was applied under this name before, and is given no more, goes
    #[arg(long, default_value = FIELD_MANAGER, value_name = "NAME")]
    pub(super) field_manager: String,
    /// Take over fields that others own with other values
    #[arg(long)]
    pub(super) force: bool,
    /// The name of the set that these objects are: the label bluebird/apply-set of each
    #[arg(long, value_name = "NAME")]
    pub(super) apply_set: Option<String>,
    /// Delete the objects of the set that are not in the manifests any more
    #[arg(long, requires = "apply_set")]
    pub(super) prune: bool,
    /// Check everything and tell what would be done, but change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Who applies when nobody says otherwise.
const FIELD_MANAGER: &str = "bluebird-cli";

impl Default for HowToApply {
    fn default() -> Self {
        Self { field_manager: FIELD_MANAGER.to_owned(), force: false, apply_set: None, prune: false, dry_run: false }
    }
}

/// Which objects are meant.
#[derive(Args, Debug)]
pub(super) struct Objects {
    /// KIND, KIND NAME…, KIND,KIND… or KIND/NAME…
    #[arg(value_name = "KIND [NAME]")]
    pub(super) words: Vec<String>,
    /// Only objects with these labels: a=b, a!=b, "a in (x,y)", "a notin (x,y)", a, !a
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Get {
    #[command(flatten)]
    pub(super) objects: Objects,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
    /// Go on with every change
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Leave out the line of headings
    #[arg(long)]
    pub(super) no_headers: bool,
    /// Print who owns which fields, too, with -o yaml and -o json
    #[arg(long)]
    pub(super) show_managed_fields: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A line for each
    Table,
    /// A longer line for each
    Wide,
    /// Everything, as it could be applied
    Yaml,
    /// Everything
    Json,
    /// KIND/NAME
    Name,
}

#[derive(Args, Debug)]
pub(super) struct Describe {
    #[command(flatten)]
    pub(super) objects: Objects,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
}

#[derive(Args, Debug)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) objects: Objects,
    #[command(flatten)]
    pub(super) files: Files,
    /// Wait until they are gone; --wait=false only asks for it
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) wait: bool,
    /// How many seconds processes get to stop, instead of what the object says; 0 means 1
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    pub(super) grace_period: Option<i64>,
    /// Remove the objects at once, without waiting for their processes to stop
    #[arg(long, conflicts_with = "grace_period")]
    pub(super) force: bool,
    /// It is no failure if there is no such object
    #[arg(long)]
    pub(super) ignore_not_found: bool,
    /// How long to wait until they are gone; it is a failure if one is still there then
    #[arg(long, default_value = "5m", value_parser = super::age::parse_duration, value_name = "TIME")]
    pub(super) timeout: std::time::Duration,
}

#[derive(Args, Debug)]
pub(super) struct Logs {
    /// The pod
    #[arg(value_name = "POD", required_unless_present = "selector", conflicts_with = "selector")]
    pub(super) pod: Option<String>,
    /// All pods with these labels, their lines in the order of their times; with -f also those that come later
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME")]
    pub(super) container: Option<String>,
    /// Every container of a pod, also those that prepare it
    #[arg(long, conflicts_with = "container")]
    pub(super) all_containers: bool,
    /// Go on with what will be written
    #[arg(short, long)]
    pub(super) follow: bool,
    /// The run before the present one
    #[arg(short, long)]
    pub(super) previous: bool,
    /// Only so many lines from the end, of each log
    #[arg(long, value_name = "LINES")]
    pub(super) tail: Option<u32>,
    /// Begin so long ago, for instance 10m or 1h30m
    #[arg(long, value_parser = super::age::parse_duration, value_name = "TIME", conflicts_with = "since_time")]
    pub(super) since: Option<std::time::Duration>,
    /// Begin at a time, for instance 2026-11-21T15:59:08Z
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub(super) since_time: Option<prost_types::Timestamp>,
    /// Begin each line with the time at which it was written
    #[arg(long)]
    pub(super) timestamps: bool,
    /// Begin each line with pod and container
    #[arg(long)]
    pub(super) prefix: bool,
    /// How many logs may be read at a time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "COUNT")]
    pub(super) max_log_requests: u32,
}

fn time(text: &str) -> Result<prost_types::Timestamp, String> {
    text.parse().map_err(|_| "write it as in 2026-11-21T15:59:08Z or 2026-11-21T16:59:08.5+01:00".to_owned())
}

/// Exit codes: that of the command; 127 when there is no such program, 126 when it can't be executed, 1 when it could not be asked for or was ended.
#[derive(Args, Debug)]
#[command(after_help = "For instance: bluebird exec -it web -- sh")]
pub(super) struct Exec {
    /// The pod
    #[arg(value_name = "POD")]
    pub(super) pod: String,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME")]
    pub(super) container: Option<String>,
    /// Pass standard input on to the command
    #[arg(short = 'i', long)]
    pub(super) stdin: bool,
    /// Run the command in a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// The program and its arguments. No shell looks at them
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "For instance: bluebird port-forward service/hello 8080:80")]
pub(super) struct PortForward {
    /// A pod, or service/NAME: then each connection goes to one of its ready pods
    #[arg(value_name = "POD|service/NAME")]
    pub(super) target: String,
    /// The port of the pod or service, a number or a name, and before it where to listen on this machine: the same number if not given, any free port
    /// if it is empty, 0, or the port is named
    #[arg(value_name = "[LOCAL:]PORT", required = true)]
    pub(super) ports: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Top {
    /// What nodes use, all of each machine
    #[command(visible_aliases = ["nodes", "no"])]
    Node(TopNodes),
    /// What pods use
    #[command(visible_aliases = ["pods", "po"])]
    Pod(TopPods),
}

#[derive(Args, Debug)]
pub(super) struct TopNodes {
    /// The node; all if not given
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) how: HowToTop,
}

#[derive(Args, Debug)]
pub(super) struct TopPods {
    /// The pod; all of the namespace if not given
    #[arg(value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub(super) all_namespaces: bool,
    /// A line for each container
    #[arg(long)]
    pub(super) containers: bool,
    #[command(flatten)]
    pub(super) how: HowToTop,
}

/// How figures are shown.
#[derive(Args, Debug)]
pub(super) struct HowToTop {
    /// Only those with these labels: a=b, a!=b, "a in (x,y)", "a notin (x,y)", a, !a
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "name")]
    pub(super) selector: Option<String>,
    /// The largest first, instead of by name
    #[arg(long, value_enum, value_name = "FIGURE")]
    pub(super) sort_by: Option<Figure>,
    /// Show them anew every 5 s
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Leave out the line of headings
    #[arg(long)]
    pub(super) no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Figure {
    /// Processors
    Cpu,
    /// Memory
    Memory,
    /// Disk
    Disk,
}

#[derive(Args, Debug)]
pub(super) struct Backup {
    /// The file to write. It has this name only when it is complete
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Replace a file of this name
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct Conformance {
    /// The node; the only one that is ready if not given
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Only the cases with this in their names
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Option<String>,
    /// Print the cases and run none
    #[arg(long)]
    pub(super) list: bool,
    /// The program testapp as the node names it; the one beside its kubelet if not given
    #[arg(long, value_name = "PATH-ON-NODE")]
    pub(super) testapp: Option<String>,
    /// How many cases run at once
    #[arg(long, default_value_t = 8, value_name = "COUNT")]
    pub(super) parallel: usize,
    /// How long each step of a case may take
    #[arg(long, default_value = "60s", value_parser = super::age::parse_duration, value_name = "TIME")]
    pub(super) timeout: std::time::Duration,
    /// Leave everything that cases made in their namespaces
    #[arg(long)]
    pub(super) keep: bool,
    /// Write the results to a file, as JSON
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Write the results into a table of cases and systems, which keeps those of other systems
    #[arg(long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    /// The table's column; the node's system and user if not given
    #[arg(long, value_name = "NAME")]
    pub(super) column: Option<String>,
}

/// What of a store is wanted. All of these only read, also while an apiserver writes: then the last commits may be missing, or be there a moment before whoever asked
/// for them hears of it.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Check every checksum and every object
    Check(StorePath),
    /// Print every object
    Dump(Dump),
    /// Count objects and bytes, and tell how far the history goes back and how large the files are
    Stats(StorePath),
}

#[derive(Args, Debug)]
pub(super) struct StorePath {
    /// An apiserver's data folder, or a backup
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Dump {
    #[command(flatten)]
    pub(super) store: StorePath,
    /// Print the commits that are kept instead, each as a line of JSON
    #[arg(long)]
    pub(super) log: bool,
    /// How to print objects
    #[arg(short, long, value_enum, default_value_t = DumpOutput::Yaml, conflicts_with = "log")]
    pub(super) output: DumpOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DumpOutput {
    /// Documents of YAML, as they could be applied
    Yaml,
    /// A line of JSON for each
    Json,
}

#[derive(Args, Debug)]
pub(super) struct Explain {
    /// For instance pod, or pod.spec.containers
    #[arg(value_name = "KIND[.FIELD…]")]
    pub(super) path: String,
    /// All fields within fields, without their texts
    #[arg(long)]
    pub(super) recursive: bool,
}

#[derive(Args, Debug)]
pub(super) struct Echo {
    /// The port to listen on; 0 for any free one
    #[arg(long, env = "PORT", default_value_t = 0)]
    pub(super) port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: IpAddr,
    /// The name to answer with
    #[arg(long, default_value = "echo")]
    pub(super) name: String,
}
