//! How durations and times look as data: milliseconds, and RFC 3339 in UTC.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use crate::Stage;

pub(crate) fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

pub(crate) fn optional_millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&(duration.as_secs_f64() * 1e3)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

pub(crate) fn optional_text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

pub(crate) fn through_arc<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    T::serialize(value, serializer)
}

pub(crate) fn stages<S: Serializer>(stages: &[(Stage, Duration)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(stages.len()))?;
    stages.iter().try_for_each(|(stage, duration)| list.serialize_element(&StageTime(*stage, *duration)))?;
    list.end()
}

struct StageTime(Stage, Duration);

impl Serialize for StageTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("StageTime", 2)?;
        fields.serialize_field("stage", &self.0)?;
        fields.serialize_field("duration_ms", &(self.1.as_secs_f64() * 1e3))?;
        fields.end()
    }
}
