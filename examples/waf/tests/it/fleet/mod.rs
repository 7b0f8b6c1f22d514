//! A fleet as its operators meet it: the acceptance tests of its design, by number, on a real NATS server.

mod changes;
mod demo;
mod faults;
mod hands;
mod page;
mod rights;
mod rules;
mod trust;
