//! The cases, a file for each area.

mod configuration;
mod containers;
mod environment;
mod interactive;
mod limits;
mod logs;
mod obstacles;
mod ports;
mod probes;
mod restarts;
mod start;
mod static_pods;
mod stop;
mod stop_methods;
mod top;
mod users;
mod volumes;

use super::case::Case;

const AREAS: &[&[Case]] = &[
    start::CASES,
    obstacles::CASES,
    environment::CASES,
    restarts::CASES,
    containers::CASES,
    configuration::CASES,
    volumes::CASES,
    users::CASES,
    probes::CASES,
    limits::CASES,
    ports::CASES,
    logs::CASES,
    stop::CASES,
    stop_methods::CASES,
    static_pods::CASES,
    top::CASES,
    interactive::CASES,
];

/// All cases, area after area.
pub(super) fn all() -> impl Iterator<Item = &'static Case> {
    AREAS.iter().copied().flatten()
}
