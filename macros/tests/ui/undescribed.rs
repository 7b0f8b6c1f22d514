//! A serde type without a description, alone and within others.

use hotslot_plugin::{Schema, interface};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Undescribed;

#[derive(Serialize, Deserialize, Schema)]
pub struct Within {
    field: Undescribed,
}

#[interface(version = "1.0")]
pub trait Takes {
    fn take(&self, value: Vec<Undescribed>);
}

fn main() {}
