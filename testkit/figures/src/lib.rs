//! One measured figure beside its reference and its goal, for people or for machines.
#![forbid(unsafe_code)]

use serde_json::{Value, json};

/// A figure.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// What was measured.
    pub name: &'a str,
    /// What came of it, in `unit`.
    pub value: f64,
    /// The unit; its letters are those that people know.
    pub unit: &'a str,
    /// What it is compared with, in the same unit.
    pub reference: Option<f64>,
    /// The goal in words, and whether it was met.
    pub goal: Option<(&'a str, bool)>,
}

impl Row<'_> {
    /// Writes it to standard output, as one JSON object a line where a machine reads it.
    pub fn print(&self, as_json: bool) {
        match as_json {
            true => println!("{}", self.json()),
            false => println!("{}", self.text()),
        }
    }

    fn ratio(&self) -> Option<f64> {
        self.reference.map(|reference| self.value / reference)
    }

    fn json(&self) -> Value {
        let (goal, met) = self.goal.unzip();
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "reference": self.reference,
            "ratio": self.ratio(), "goal": goal, "met": met
        })
    }

    fn text(&self) -> String {
        let against = match (self.reference, self.ratio()) {
            (Some(reference), Some(ratio)) => format!("reference {reference:.3}, ratio {ratio:.2}"),
            _ => String::new(),
        };
        let goal = match self.goal {
            Some((goal, true)) => format!("goal {goal}: met"),
            Some((goal, false)) => format!("goal {goal}: NOT met"),
            None => String::new(),
        };
        let Self { name, value, unit, .. } = self;
        format!("{name:56} {value:>10.3} {unit:5} {against:34} {goal}").trim_end().to_owned()
    }
}

/// The value below which this part of all values lies; not a number where there are none.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}

/// The value in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

/// Whether this machine has the two cores that goals of whole pods are for: a verdict on any other says nothing.
pub fn on_two_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_the_same_to_people_and_machines() {
        let row = Row {
            name: "start",
            value: 3.0,
            unit: "s",
            reference: Some(2.0),
            goal: Some(("at most 2 s", false)),
        };
        let text = row.text();
        assert!(text.contains("3.000 s     reference 2.000, ratio 1.50 "), "{text}");
        assert!(text.ends_with(" goal at most 2 s: NOT met"), "{text}");
        assert_eq!(row.json()["ratio"], 1.5);
        assert_eq!(row.json()["met"], false);
        let alone = Row { reference: None, goal: None, ..row };
        assert!(alone.text().ends_with("3.000 s") && alone.json()["goal"].is_null());
    }

    #[test]
    fn the_middle_of_none_is_no_number() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(&mut [1.0, 2.0, 3.0], 1.0), 3.0);
        assert!(median(&mut []).is_nan());
    }
}
