//! The figures, as a table.

use std::collections::BTreeMap;
use std::fmt;

use crate::corpus::{Outcome, Sample};

#[derive(Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
}

#[derive(Clone, Copy, Default)]
struct Row {
    attacks: usize,
    detected: usize,
    stopped: usize,
    elsewhere: usize,
    harmless: usize,
    flagged: usize,
    refused: usize,
}

impl Table {
    pub(crate) fn add(&mut self, sample: &Sample, outcome: &Outcome) {
        let row = self.rows.entry(sample.family().to_owned()).or_default();
        if sample.attack {
            row.attacks += 1;
            row.detected += usize::from(outcome.flagged);
            row.stopped += usize::from(outcome.stopped);
            row.elsewhere += usize::from(outcome.any && !outcome.flagged);
        } else {
            row.harmless += 1;
            row.flagged += usize::from(outcome.flagged);
            row.refused += usize::from(outcome.stopped);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "family    attacks  detected          stopped           by another  harmless  flagged         refused"
        )?;
        let mut all = Row::default();
        for (family, row) in &self.rows {
            line(f, family, row)?;
            all.attacks += row.attacks;
            all.detected += row.detected;
            all.stopped += row.stopped;
            all.elsewhere += row.elsewhere;
            all.harmless += row.harmless;
            all.flagged += row.flagged;
            all.refused += row.refused;
        }
        line(f, "all", &all)?;
        writeln!(
            f,
            "detected: a rule of the family matched. stopped: blocked or challenged. by another: only another family matched."
        )?;
        writeln!(
            f,
            "flagged: a rule of the family matched although none must; some of these are attacks of another kind."
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, family: &str, row: &Row) -> fmt::Result {
    writeln!(
        f,
        "{family:<9} {:>7}  {:<16}  {:<16}  {:>10}  {:>8}  {:<14}  {:<14}",
        row.attacks,
        share(row.detected, row.attacks),
        share(row.stopped, row.attacks),
        row.elsewhere,
        row.harmless,
        share(row.flagged, row.harmless),
        share(row.refused, row.harmless),
    )
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{part} ({:.1} %)", 100.0 * part as f64 / whole as f64)
}
