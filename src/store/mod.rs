//! State in memory, one ordered commit feed, and a durable backend.
