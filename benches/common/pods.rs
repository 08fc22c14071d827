//! The objects of the load.

use std::collections::HashMap;

use bluebird::api::v1::{
    Container, ContainerPort, CreateRequest, EnvVar, Object, ObjectMeta, Pod, PodSpec, ResourceRequirements, Selector, WatchRequest, object,
};
use bytes::Bytes;
use prost::Message as _;

use super::wire::{Fields, Value, message_field};

/// Digits of a number in a name: all of one width, so that it can be put into an encoded message.
const DIGITS: usize = 10;
const NUMBER: &str = "##########";
const NODE: &str = "@@@@@@@@@@";

/// An encoded request in which a pod's number and a node's number are still open.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    number_at: Vec<usize>,
    node_at: Vec<usize>,
}

impl Template {
    pub fn new(bytes: Vec<u8>) -> Self {
        let positions = |marker: &str| {
            let windows = bytes.windows(DIGITS).enumerate();
            windows.filter(|(_, window)| *window == marker.as_bytes()).map(|(at, _)| at).collect()
        };
        Self { number_at: positions(NUMBER), node_at: positions(NODE), bytes }
    }

    /// The request for this number and node.
    pub fn fill(&self, number: u64, node: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        for (places, value) in [(&self.number_at, number), (&self.node_at, node)] {
            let digits = digits(value);
            for at in places {
                bytes[*at..*at + DIGITS].copy_from_slice(&digits);
            }
        }
        bytes.into()
    }

    /// The size of a request.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn digits(mut value: u64) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

/// The number at the end of a name.
pub fn number_of(name: &[u8]) -> Option<u64> {
    let digits = name.get(name.len().checked_sub(DIGITS)?..)?;
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// A request to create a pod whose object, as stored, has about 1 KiB. With `bound` it says which node it is for.
pub fn create_request(bound: bool) -> Template {
    let object = pod(&format!("pod-{NUMBER}"), if bound { format!("node-{NODE}") } else { String::new() });
    Template::new(CreateRequest { object: Some(object), dry_run: false }.encode_to_vec())
}

fn pod(name: &str, node_name: String) -> Object {
    let words =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<HashMap<_, _>>();
    let variable = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: value.to_owned() };
    let container = Container {
        name: "web".to_owned(),
        command: vec!["/usr/bin/web".to_owned()],
        args: vec!["--listen".to_owned(), "127.0.0.1:$(PORT)".to_owned(), "--root".to_owned(), "/srv/web/htdocs".to_owned()],
        env: vec![variable("LOG_LEVEL", "info"), variable("DATABASE_URL", "postgres://web@db.default:5432/web"), variable("WORKERS", "4")],
        ports: vec![ContainerPort { name: "http".to_owned(), ..Default::default() }],
        resources: Some(ResourceRequirements { requests: words(&[("cpu", "100m"), ("memory", "64Mi")]), limits: HashMap::new() }),
        ..Default::default()
    };
    let metadata = ObjectMeta {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        labels: words(&[("app.kubernetes.io/name", "web"), ("app.kubernetes.io/part-of", "shop"), ("tier", "frontend")]),
        annotations: HashMap::from([("bench/padding".to_owned(), "x".repeat(384))]),
        ..Default::default()
    };
    let spec = PodSpec { containers: vec![container], node_name, ..Default::default() };
    Object { kind: Some(object::Kind::Pod(Pod { metadata: Some(metadata), spec: Some(spec), status: None })) }
}

/// A request to watch all pods, or only those of a node.
pub fn watch_request(node: Option<u64>) -> Bytes {
    let node_name = node.map_or(String::new(), |node| format!("node-{node:010}"));
    let selector = Selector { kind: "Pod".to_owned(), node_name, ..Default::default() };
    WatchRequest { selectors: vec![selector], ..Default::default() }.encode_to_vec().into()
}

/// The number of the pod of each event of an encoded `WatchResponse`.
pub fn numbers_in(response: &[u8]) -> impl Iterator<Item = u64> {
    Fields(response).filter_map(|(field, value)| match (field, value) {
        (1, Value::Message(event)) => {
            let metadata = message_field(message_field(message_field(event, 2)?, 1)?, 1)?;
            number_of(message_field(metadata, 1)?)
        }
        _ => None,
    })
}
