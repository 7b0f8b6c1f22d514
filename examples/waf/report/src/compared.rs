//! Engines side by side.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use waf_interface::Verdict;

use crate::corpus::Sample;
use crate::engine::Engine;

/// Between these lines of a file, figures are written by this command.
const BEGIN: &str = "<!-- Written by waf-rules-report. -->\n";
const END: &str = "<!-- The end of what waf-rules-report writes. -->\n";

/// What one engine said, and how long it took.
pub(crate) struct Column {
    name: String,
    /// For each sample, in their order.
    verdicts: Vec<Verdict>,
    /// Of all calls, in order of their length.
    times: Vec<Duration>,
}

impl Column {
    /// Puts each sample to an engine, once for its verdict and then for its time.
    pub(crate) fn measured(engine: &Engine, samples: &[Sample], rounds: usize) -> Result<Column, String> {
        let mut column = Column { name: engine.name.clone(), verdicts: Vec::new(), times: Vec::new() };
        let written = samples.iter().map(Sample::written).collect::<Result<Vec<_>, _>>()?;
        for request in &written {
            column.verdicts.push(engine.inspect(request)?.verdict);
        }
        for _ in 0..rounds {
            for request in &written {
                let began = Instant::now();
                engine.inspect(request)?;
                column.times.push(began.elapsed());
            }
        }
        column.times.sort_unstable();
        Ok(column)
    }

    /// The time that this share of the calls does not exceed.
    fn quantile(&self, share: f64) -> String {
        let at = ((self.times.len() as f64 * share) as usize).min(self.times.len().saturating_sub(1));
        self.times.get(at).map_or_else(|| "-".to_owned(), |time| format!("{:.3} ms", time.as_secs_f64() * 1e3))
    }
}

/// A row: which samples it is about, and whether they are attacks.
struct Row {
    title: String,
    is_attack: bool,
    samples: Vec<usize>,
}

/// A comparison of engines over the same samples.
pub(crate) struct Comparison {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

impl Comparison {
    pub(crate) fn of(columns: Vec<Column>, samples: &[Sample]) -> Comparison {
        let mut families: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let (mut attacks, mut harmless) = (Vec::new(), Vec::new());
        for (at, sample) in samples.iter().enumerate() {
            if sample.attack {
                families.entry(sample.family()).or_default().push(at);
                attacks.push(at);
            } else {
                harmless.push(at);
            }
        }
        let row = |title: String, is_attack, samples| Row { title, is_attack, samples };
        let mut rows: Vec<Row> =
            families.into_iter().map(|(family, samples)| row(family.to_owned(), true, samples)).collect();
        rows.push(row("all attacks".to_owned(), true, attacks));
        rows.push(row("harmless".to_owned(), false, harmless));
        Comparison { columns, rows }
    }

    /// Writes the table into a file, between the lines that say so.
    pub(crate) fn write_into(&self, file: &Path) -> Result<(), String> {
        let named = |problem: &dyn fmt::Display| format!("{}: {problem}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
        let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, behind) =
            parts.ok_or_else(|| named(&format!("there are no lines {:?} and {:?}", BEGIN.trim(), END.trim())))?;
        std::fs::write(file, format!("{before}{BEGIN}{self}{END}{behind}")).map_err(|error| named(&error))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| | requests |")?;
        self.columns.iter().try_for_each(|column| write!(f, " {} |", column.name))?;
        write!(f, "\n|---|---|")?;
        self.columns.iter().try_for_each(|_| write!(f, "---|"))?;
        writeln!(f)?;
        for Row { title, is_attack, samples } in &self.rows {
            let what = if *is_attack { "found, stopped" } else { "flagged, stopped" };
            write!(f, "| {title}: {what} | {} |", samples.len())?;
            for column in &self.columns {
                let share = |counts: &dyn Fn(&Verdict) -> bool| {
                    let count = samples
                        .iter()
                        .filter_map(|at| column.verdicts.get(*at))
                        .filter(|verdict| counts(verdict))
                        .count();
                    if samples.is_empty() {
                        "-".to_owned()
                    } else {
                        format!("{:.1} %", 100.0 * count as f64 / samples.len() as f64)
                    }
                };
                let found = share(&|verdict| *verdict != Verdict::Allow);
                let stopped = share(&|verdict| matches!(verdict, Verdict::Block | Verdict::Challenge));
                write!(f, " {found}, {stopped} |")?;
            }
            writeln!(f)?;
        }
        for (title, share) in [("time of a request, p50", 0.5), ("p99", 0.99)] {
            write!(f, "| {title} | |")?;
            self.columns.iter().try_for_each(|column| write!(f, " {} |", column.quantile(share)))?;
            writeln!(f)?;
        }
        let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
        writeln!(
            f,
            "\nFound: any verdict but to let it through. Stopped: blocked or challenged. The host was an {build} build."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_between_their_lines_and_nowhere_else() {
        let sample = |family: Option<&str>, attack| {
            let family = family.map_or_else(|| "null".to_owned(), |family| format!("{family:?}"));
            let text = format!(
                r#"{{"id":"a","family":{family},"method":"GET","uri":"/","headers":{{}},"body":null,"attack":{attack}}}"#
            );
            serde_json::from_str::<Sample>(&text).unwrap()
        };
        let samples = [sample(Some("a family of one's own"), true), sample(None, false)];
        let times = (1..=100).map(Duration::from_millis).collect();
        let column = Column { name: "one".to_owned(), verdicts: vec![Verdict::Block, Verdict::Log], times };
        let comparison = Comparison::of(vec![column], &samples);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(comparison.write_into(file.path()).is_err());
        std::fs::write(file.path(), format!("before\n{BEGIN}old\n{END}behind\n")).unwrap();
        comparison.write_into(file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(text.starts_with("before\n<!--") && text.ends_with("-->\nbehind\n") && !text.contains("old"), "{text}");
        assert!(text.contains("| a family of one's own: found, stopped | 1 | 100.0 %, 100.0 % |"), "{text}");
        assert!(text.contains("| harmless: flagged, stopped | 1 | 100.0 %, 0.0 % |"), "{text}");
        assert!(text.contains("| 51.000 ms |") && text.contains("| 100.000 ms |"), "{text}");
    }
}
