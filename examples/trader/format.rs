//! Formats reports, events and the slot's status for display.

use std::time::{Instant, UNIX_EPOCH};

use hotslot::{Cause, Event, HotSlot, Outcome, Report};
use trader_feed::PriceFeed;

use crate::screen::Bar;

/// Formats one attempt to change the plugin, in one line.
pub fn attempt(report: &Report) -> String {
    let what = match &report.cause {
        Cause::Open => "opened".to_owned(),
        Cause::Reload => "reload".to_owned(),
        Cause::Rollback => "rollback".to_owned(),
        Cause::Automatic { reason } => format!("rolled back automatically, because {reason}"),
        cause => format!("{cause:?}"),
    };
    match &report.outcome {
        Outcome::Swapped { generation, .. } => {
            let version = report.version.as_ref().map(|version| format!(", version {version}")).unwrap_or_default();
            let digest = report.digest.map(|digest| format!(", digest {}", digest.short())).unwrap_or_default();
            let stages: String = report.stages.iter().map(|(stage, took)| format!(", {stage} {took:.1?}")).collect();
            let gap = report.gap.map(|gap| format!(", gap {gap:.1?}")).unwrap_or_default();
            format!(
                "{what}: now serving generation {generation}{version}{digest}{stages}{gap}, total {:.1?}",
                report.total
            )
        }
        Outcome::Unchanged { generation } => format!("{what}: unchanged, still serving generation {generation}"),
        Outcome::Refused { stage, error } => format!("{what}: refused at {stage}: {error}"),
        outcome => format!("{what}: {outcome:?}"),
    }
}

/// Formats an attempt with its number and its wall-clock time.
pub fn history(report: &Report) -> String {
    let seconds = report.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("#{} {} UTC  {}", report.attempt, clock(seconds % 86_400), attempt(report))
}

/// Formats an event that no command asked for; `None` for the others, whose results the command prints.
pub fn unrequested(event: &Event) -> Option<String> {
    match event {
        Event::Ended(report) if matches!(report.cause, Cause::Automatic { .. }) => Some(attempt(report)),
        Event::Stuck { generation, age, .. } => {
            Some(format!("generation {generation} has not stopped {age:.1?} after its stop signal"))
        }
        Event::RunEnded { generation, error: Some(error) } => Some(format!("generation {generation} failed: {error}")),
        Event::Alarm { message } => Some(format!("alarm: {message}")),
        Event::Lagged(events) => Some(format!("{events} events were lost: the terminal is too slow")),
        _ => None,
    }
}

/// Formats the status bar.
pub fn bar(slot: &HotSlot<dyn PriceFeed>, is_replay: bool, since: Instant) -> Bar {
    let mut status = if is_replay { "REPLAY | ".to_owned() } else { String::new() };
    if let Some(serving) = slot.status().serving {
        let version = serving.version.map(|version| version.to_string()).unwrap_or_default();
        status += &format!("{} {version} | {} | gen {}", serving.name, slot.load().symbol(), serving.generation);
    }
    status += &format!(" | up {}", clock(since.elapsed().as_secs()));
    let history = slot.history();
    let reload = history.iter().rev().find(|report| report.is_swap() && report.cause != Cause::Open);
    if let Some(reload) = reload {
        status += &format!(" | last reload {:.0?}", reload.total);
        status += &reload.gap.map(|gap| format!(", gap {gap:.0?}")).unwrap_or_default();
    }
    [status, "ctrl+r rebuild and reload | ctrl+b roll back | h history | ctrl+c quit".to_owned()]
}

/// Formats seconds as hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
