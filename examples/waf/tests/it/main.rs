//! The node as its users meet it: the real program, over real connections. One file for each theme.
//!
//! Tests wait for what they want to see, never for time.

#![allow(unreachable_pub, reason = "a test has nobody outside")]

mod access;
mod admin;
mod archive;
mod bombs;
mod bots;
mod calls;
mod clients;
mod clock;
mod compiled;
mod config;
mod engines;
mod failures;
mod files;
mod fleet;
mod hangs;
mod instances;
mod libraries;
mod life;
mod limits;
mod logs;
mod mild;
mod modules;
mod page;
mod programs;
mod proxy;
mod races;
mod rules;
mod servers;
mod sites;
mod store;
mod support;
mod swaps;
mod tls;
mod trial;
mod trial_page;
mod trust;
mod uploads;
