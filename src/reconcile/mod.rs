//! The loop, once: keyed queue, back-off, driver.
