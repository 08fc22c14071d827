//! What a line says of figures. Everything here is a function of them.

use std::collections::HashMap;

use crate::api::quantity;
use crate::api::v1::{ContainerUsage, TopMissing, TopNode, TopPod};
use crate::console::args::Figure;
use crate::console::words;

/// What is shown of a figure that nobody could measure.
const UNKNOWN: &str = "<unknown>";

/// One line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    namespace: String,
    /// The node; or the pod, and the container if there is a line for each.
    names: Vec<String>,
    cpu_millis: Option<u64>,
    memory_bytes: Option<u64>,
    /// Absent where a line has none.
    disk_bytes: Option<Option<u64>>,
    /// Of a node: what there is of each, in the order of the figures.
    totals: Option<[Option<u64>; 3]>,
    /// What it is of, and why there are no figures.
    missing: Option<(String, String)>,
}

impl Row {
    /// What it is of, and why there are no figures.
    pub(super) fn missing(&self) -> Option<(&str, &str)> {
        self.missing.as_ref().map(|(whose, why)| (whose.as_str(), why.as_str()))
    }

    pub(super) fn has_figures(&self) -> bool {
        self.missing.is_none()
    }

    pub(super) fn figure(&self, figure: Figure) -> Option<u64> {
        match figure {
            Figure::Cpu => self.cpu_millis,
            Figure::Memory => self.memory_bytes,
            Figure::Disk => self.disk_bytes.flatten(),
        }
    }
}

/// A node with what it has.
pub(super) fn of_node(node: &TopNode, capacity: Option<&HashMap<String, String>>) -> Row {
    let usage = node.usage.unwrap_or_default();
    let amount = |name: &str, parse: fn(&str) -> Result<u64, quantity::NoQuantity>| parse(capacity?.get(name)?).ok();
    let totals = [amount("cpu", quantity::cpu_millis), amount("memory", quantity::bytes), usage.disk_total_bytes];
    Row {
        names: vec![node.name.clone()],
        cpu_millis: usage.cpu_millis,
        memory_bytes: usage.memory_bytes,
        disk_bytes: Some(usage.disk_bytes),
        totals: Some(totals),
        missing: missing(format!("node/{}", node.name), node.missing.as_ref()),
        ..Row::default()
    }
}

/// A pod, or each of its containers.
pub(super) fn of_pod(pod: &TopPod, each_container: bool) -> Vec<Row> {
    let usage = pod.usage.clone().unwrap_or_default();
    let row = Row {
        namespace: pod.namespace.clone(),
        names: vec![pod.name.clone()],
        missing: missing(format!("pod/{}", pod.name), pod.missing.as_ref()),
        ..Row::default()
    };
    if !each_container {
        let sum = |figure: fn(&ContainerUsage) -> Option<u64>| usage.containers.iter().filter_map(figure).reduce(u64::saturating_add);
        let (cpu_millis, memory_bytes) = (sum(|one| one.cpu_millis), sum(|one| one.memory_bytes));
        return vec![Row { cpu_millis, memory_bytes, disk_bytes: Some(usage.disk_bytes), ..row }];
    }
    if row.missing.is_some() {
        return vec![Row { names: vec![pod.name.clone(), UNKNOWN.to_owned()], ..row }];
    }
    let of_container = |one: ContainerUsage| Row {
        names: vec![pod.name.clone(), one.name],
        cpu_millis: one.cpu_millis,
        memory_bytes: one.memory_bytes,
        ..row.clone()
    };
    usage.containers.into_iter().map(of_container).collect()
}

fn missing(whose: String, missing: Option<&TopMissing>) -> Option<(String, String)> {
    missing.map(|missing| (whose, missing.message.clone()))
}

/// The headings of a table.
pub(super) fn headings(nodes: bool, containers: bool, namespaces: bool) -> Vec<String> {
    let rest: &[&str] = match (nodes, containers) {
        (true, _) => &["NAME", "CPU(cores)", "CPU%", "MEMORY(bytes)", "MEMORY%", "DISK(bytes)", "DISK%"],
        (false, true) => &["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"],
        (false, false) => &["NAME", "CPU(cores)", "MEMORY(bytes)", "DISK(bytes)"],
    };
    let namespace = if namespaces { &["NAMESPACE"][..] } else { &[] };
    [namespace, rest].concat().into_iter().map(str::to_owned).collect()
}

/// The cells under them.
pub(super) fn cells(row: &Row, namespaces: bool) -> Vec<String> {
    let mut cells: Vec<String> = namespaces.then(|| row.namespace.clone()).into_iter().chain(row.names.iter().cloned()).collect();
    let figures = [
        Some(row.cpu_millis.map(|millis| format!("{millis}m"))),
        Some(row.memory_bytes.map(words::bytes)),
        row.disk_bytes.map(|bytes| bytes.map(words::bytes)),
    ];
    let numbers = [row.cpu_millis, row.memory_bytes, row.disk_bytes.flatten()];
    for (place, figure) in figures.into_iter().enumerate() {
        let Some(figure) = figure else { continue };
        cells.push(figure.unwrap_or_else(|| UNKNOWN.to_owned()));
        if let Some(totals) = row.totals {
            cells.push(share(numbers[place], totals[place]).unwrap_or_else(|| UNKNOWN.to_owned()));
        }
    }
    cells
}

fn share(part: Option<u64>, whole: Option<u64>) -> Option<String> {
    let whole = whole.filter(|whole| *whole > 0)?;
    Some(format!("{}%", u128::from(part?) * 100 / u128::from(whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1::{NodeUsage, PodUsage};

    fn container(name: &str, cpu_millis: Option<u64>, memory_bytes: Option<u64>) -> ContainerUsage {
        ContainerUsage { name: name.into(), cpu_millis, memory_bytes }
    }

    fn pod(containers: Vec<ContainerUsage>, missing: Option<&str>) -> TopPod {
        TopPod {
            namespace: "default".into(),
            name: "web".into(),
            usage: missing.is_none().then(|| PodUsage { uid: "u".into(), containers, disk_bytes: Some(4096) }),
            missing: missing.map(|message| TopMissing { message: message.into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn line(row: &Row, namespaces: bool) -> String {
        cells(row, namespaces).join(" ")
    }

    #[test]
    fn a_pod_uses_what_its_containers_do() {
        let both = pod(vec![container("a", Some(250), Some(1 << 20)), container("b", None, Some(3 << 20))], None);
        assert_eq!(line(&of_pod(&both, false)[0], true), "default web 250m 4Mi 4Ki");
        let each: Vec<_> = of_pod(&both, true).iter().map(|row| line(row, false)).collect();
        assert_eq!(each, ["web a 250m 1Mi", "web b <unknown> 3Mi"]);
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let unknown = of_pod(&pod(vec![], Some("it has ended")), false);
        assert_eq!(line(&unknown[0], false), "web <unknown> <unknown> <unknown>");
        assert_eq!(unknown[0].missing(), Some(("pod/web", "it has ended")));
        assert_eq!(line(&of_pod(&pod(vec![], Some("it has ended")), true)[0], false), "web <unknown> <unknown> <unknown>");
        assert!(unknown[0].figure(Figure::Cpu) < Some(0), "it is the last one when sorted");
    }

    #[test]
    fn a_node_is_shown_with_its_share_of_what_it_has() {
        let usage =
            NodeUsage { cpu_millis: Some(500), memory_bytes: Some(3 << 30), disk_bytes: Some(1 << 30), disk_total_bytes: Some(4 << 30) };
        let node = TopNode { name: "n1".into(), usage: Some(usage), ..Default::default() };
        let capacity = [("cpu", "2"), ("memory", "6Gi")].map(|(name, amount)| (name.to_owned(), amount.to_owned())).into();
        let row = of_node(&node, Some(&capacity));
        assert_eq!(line(&row, false), "n1 500m 25% 3Gi 50% 1Gi 25%");
        assert_eq!(cells(&row, false).len(), headings(true, false, false).len());
        assert_eq!(line(&of_node(&node, None), false), "n1 500m <unknown> 3Gi <unknown> 1Gi 25%");
    }
}
