//! What a description cannot say.

use hotslot_plugin::Schema;

#[derive(Schema)]
#[serde(tag = "type")]
enum Tagged {
    #[serde(skip)]
    Skipped,
    #[serde(untagged)]
    Other(u8),
    With(#[serde(with = "elsewhere")] u8),
}

#[derive(Schema)]
struct Fields {
    #[serde(flatten)]
    rest: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u8>,
    #[serde(skip_serializing)]
    once: u8,
    #[serde(strange)]
    strange: u8,
    #[schema(like = u8)]
    like: u8,
    #[schema(as = u8, name = "u8")]
    twice: u8,
    #[schema(name = "a name")]
    spaced: u8,
}

#[derive(Schema)]
#[serde(from = "u8")]
struct From;

#[derive(Schema)]
enum Never {}

#[derive(Schema)]
union Union {
    a: u8,
}

fn main() {}
