//! What was measured, as a table: medians of all rounds, and ratios within a round.

use crate::node::Swaps;
use crate::wrk;

/// What one load gave.
pub struct Measured {
    pub load: wrk::Result,
    pub swaps: Option<Swaps>,
}

/// A row: the same load, once in each round.
pub struct Row {
    pub name: String,
    /// The row that this one is compared with.
    pub beside: Option<usize>,
    pub rounds: Vec<Measured>,
}

impl Row {
    pub fn failed(&self) -> u64 {
        self.rounds.iter().map(|it| it.load.failed).sum()
    }

    fn each(&self, of: impl Fn(&wrk::Result) -> f64) -> Vec<f64> {
        self.rounds.iter().map(|it| of(&it.load)).collect()
    }
}

const HEADING: &str = "| | requests/s | | p50 | p99 | p99, compared | failed | swaps: done, refused; p50, longest |\n\
                       |---|---|---|---|---|---|---|---|\n";

/// Writes the table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = HEADING.to_owned();
    for row in rows {
        let per_second = |row: &Row| row.each(|load| load.per_second);
        let p99 = |row: &Row| row.each(|load| load.p99);
        let compared = |of: &dyn Fn(&Row) -> Vec<f64>| match row.beside.map(|beside| &rows[beside]) {
            Some(other) => {
                let ratios: Vec<f64> = of(row).iter().zip(of(other)).map(|(ours, theirs)| ours / theirs).collect();
                format!("{} × {}", span(&ratios, 2), other.name)
            }
            None => String::new(),
        };
        text += &format!(
            "| {} | {} | {} | {} ms | {} ms | {} | {} | {} |\n",
            row.name,
            span(&per_second(row), 0),
            compared(&per_second),
            span(&row.each(|load| load.p50), 2),
            span(&p99(row), 2),
            compared(&p99),
            failed(row),
            swaps(row),
        );
    }
    text
}

fn failed(row: &Row) -> String {
    let requests: u64 = row.rounds.iter().map(|it| it.load.requests).sum();
    format!("{} of {requests}", row.failed())
}

fn swaps(row: &Row) -> String {
    let swaps: Vec<&Swaps> = row.rounds.iter().filter_map(|it| it.swaps.as_ref()).collect();
    if swaps.is_empty() {
        return String::new();
    }
    let done: u64 = swaps.iter().map(|it| it.done).sum();
    let refused: u64 = swaps.iter().map(|it| it.failed).sum();
    let longest = swaps.iter().map(|it| it.longest_ms).fold(0.0, f64::max);
    if longest == 0.0 {
        return format!("{done}, {refused}");
    }
    let medians: Vec<f64> = swaps.iter().map(|it| it.median_ms).collect();
    format!("{done}, {refused}; {} ms, {longest:.1} ms", span(&medians, 2))
}

/// The median, and the lowest and the highest value in parentheses.
fn span(values: &[f64], digits: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted[..] {
        [] => String::new(),
        [one] => format!("{one:.digits$}"),
        [low, .., high] => format!("{:.digits$} ({low:.digits$}–{high:.digits$})", sorted[sorted.len() / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let row = |name: &str, beside, rates: [f64; 3]| Row {
            name: name.to_owned(),
            beside,
            rounds: rates
                .map(|per_second| Measured {
                    load: wrk::Result { requests: 10, failed: 1, per_second, p50: 1.0, p99: 2.0 },
                    swaps: None,
                })
                .into(),
        };
        let table = table(&[row("bare", None, [100.0, 200.0, 300.0]), row("node", Some(0), [50.0, 180.0, 240.0])]);
        let last = table.lines().last().unwrap();
        assert_eq!(
            last,
            "| node | 180 (50–240) | 0.80 (0.50–0.90) × bare | 1.00 (1.00–1.00) ms | 2.00 (2.00–2.00) ms | \
             1.00 (1.00–1.00) × bare | 3 of 30 |  |"
        );
    }
}
