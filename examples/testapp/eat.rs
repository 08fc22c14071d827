//! Uses memory and processors.

use std::time::{Duration, Instant};

use crate::{Result, say, system};

const MIB: usize = 1024 * 1024;
/// Smaller than a page of any system.
const PAGE: usize = 4096;

/// Takes so many MiB and writes into each page, then says so and keeps them; without a pause when nothing is said per second.
pub(crate) fn memory(mib: u64, per_second: u64) -> Result {
    let began = Instant::now();
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for count in 1..=mib {
        let mut block = vec![0_u8; MIB];
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        eaten.push(std::hint::black_box(block));
        if let Some(due) = (count * 1000).checked_div(per_second) {
            std::thread::sleep(Duration::from_millis(due).saturating_sub(began.elapsed()));
        }
    }
    say::line(&format!("{} MiB eaten", eaten.len()))?;
    std::mem::forget(eaten);
    Ok(())
}

/// Computes on so many threads for a time, and says how much processor time it got for that.
pub(crate) fn cpu(time: Duration, threads: usize) -> Result {
    let end = Instant::now() + time;
    let before = system::processor_time()?;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut number = 1_u64;
                while Instant::now() < end {
                    number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            });
        }
    });
    let used = system::processor_time()?.saturating_sub(before);
    say::line(&format!("{} ms of processor time in {} ms", used.as_millis(), time.as_millis()))
}
