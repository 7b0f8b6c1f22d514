//! The trader, as a person, a supervisor and an attacker meet it: the real program, on a terminal and without one.
//!
//! It runs against the exchange that it brings along. Tests wait until a line appears; a line is found once, in order.
#![cfg(unix)]

mod exchange;
mod output;
mod pipes;
mod process;
mod terminal;
mod workspace;

mod connection;
mod feeds;
mod files;
mod history;
mod hostile;
mod reload;
mod signals;
mod watch;

use exchange::Exchange;
use output::Output;
use pipes::Pipes;
use process::{Process, Start};
use terminal::Terminal;
use workspace::{Finished, Workspace};
