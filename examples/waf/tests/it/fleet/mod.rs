//! A fleet as its operators meet it: the acceptance tests of its design, by number, on a real NATS server.

mod changes;
mod demo;
mod faults;
mod groups;
mod hands;
mod page;
mod regions;
mod rights;
mod rules;
mod trust;
