//! Ports for programs that are ended and started again in the same place.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what systems give to outgoing connections: one of those would have the port while the program is away, as its own end.
const FIRST: u32 = 10_000;
const PORTS: u32 = 22_000;
/// Each process begins somewhere else, since tests run beside each other.
const PER_PROCESS: u32 = 16;

/// How often this process has looked.
static LOOKS: AtomicU32 = AtomicU32::new(0);

/// A port of this machine on which nobody listens, and which no connection is given either: a program that is started there again finds it free.
pub fn free_port() -> u16 {
    loop {
        let place = std::process::id().wrapping_mul(PER_PROCESS).wrapping_add(LOOKS.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + place % PORTS).expect("within the range");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_none_that_a_connection_is_given_and_never_the_one_before() {
        let ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        assert!(ports.iter().all(|port| (10_000..32_000).contains(port)), "{ports:?}");
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    }
}
