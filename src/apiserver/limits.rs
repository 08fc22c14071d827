/// How much one client may ask for. A client is an address, this machine, the unix socket or a node; what is within the process has no limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests a second, for as long as it likes; 0: any number.
    pub requests: u32,
    /// How many requests at once after a pause; at least 1. It is as good as new after a pause of `burst / requests` seconds.
    pub burst: u32,
    /// How many watches at a time, over all its connections; 0: any number.
    pub watches: usize,
}

impl Limits {
    /// About a quarter of the writes that two cores answer: one client that runs away leaves enough for the others, and hundreds of people and machines
    /// behind one address don't notice.
    pub const DEFAULT_REQUESTS: u32 = 5_000;
    /// Two caches for each of ten thousand machines behind one address. Idle ones take 50 MiB.
    pub const DEFAULT_WATCHES: usize = 20_000;

    /// With a burst of twice the requests of a second.
    pub const fn new(requests: u32, watches: usize) -> Self {
        Self { requests, burst: requests.saturating_mul(2), watches }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Self::DEFAULT_REQUESTS, Self::DEFAULT_WATCHES)
    }
}

/// How much one client may ask for, as flags.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// How many requests a second one client (an IP address, this machine, the unix socket, or a node) may send; 0: any number. Kubelets' sessions are not counted
    #[arg(long, env = "BLUEBIRD_CLIENT_REQUESTS", value_name = "PER SECOND", default_value_t = Limits::DEFAULT_REQUESTS)]
    client_requests: u32,
    /// How many requests it may send at once after a pause [default: twice --client-requests]
    #[arg(long, env = "BLUEBIRD_CLIENT_BURST", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    client_burst: Option<u32>,
    /// How many watches it may have, over all its connections; 0: any number. One connection has 1,000 at most
    #[arg(long, env = "BLUEBIRD_CLIENT_WATCHES", value_name = "COUNT", default_value_t = Limits::DEFAULT_WATCHES)]
    client_watches: usize,
}

impl LimitArgs {
    pub(super) fn into_limits(self) -> Limits {
        let limits = Limits::new(self.client_requests, self.client_watches);
        Limits { burst: self.client_burst.unwrap_or(limits.burst), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::apiserver::Args;

    #[test]
    fn limits_are_given_by_flags_and_a_burst_is_two_seconds_unless_said_otherwise() {
        let limits = |flags: &[&str]| {
            let args = Args::try_parse_from(["apiserver", "--data-dir", "d"].iter().chain(flags)).ok()?;
            Some(args.into_config().unwrap().limits)
        };
        assert_eq!(limits(&[]), Some(Limits { requests: 5_000, burst: 10_000, watches: 20_000 }));
        let given = limits(&["--client-requests", "10", "--client-watches", "3"]);
        assert_eq!(given, Some(Limits { requests: 10, burst: 20, watches: 3 }));
        assert_eq!(limits(&["--client-burst", "1"]), Some(Limits { requests: 5_000, burst: 1, watches: 20_000 }));
        let none = limits(&["--client-requests", "0", "--client-watches", "0"]).expect("no limits");
        assert_eq!((none.requests, none.watches), (0, 0));
        for wrong in [["--client-burst", "0"], ["--client-requests", "-1"], ["--client-requests", "5/s"], ["--client-watches", "all"]] {
            assert_eq!(limits(&wrong), None, "{wrong:?}");
        }
    }
}
