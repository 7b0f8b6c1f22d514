//! How times are written in JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat, Utc};

/// A moment as RFC 3339 has it, in UTC and with milliseconds.
pub fn moment(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A moment in seconds since 1970.
pub fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A duration in milliseconds, to the nanosecond.
pub fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
