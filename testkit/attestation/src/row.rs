//! One figure, for people or for machines.

use serde_json::json;

/// A figure.
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: f64,
    pub(crate) unit: &'a str,
    pub(crate) reference: Option<f64>,
    pub(crate) goal: Option<(&'a str, bool)>,
}

impl Row<'_> {
    pub(crate) fn print(&self, as_json: bool) {
        let ratio = self.reference.map(|reference| self.value / reference);
        let (name, value, unit) = (self.name, self.value, self.unit);
        if as_json {
            let (goal, met) = self.goal.unzip();
            println!(
                "{}",
                json!({ "name": name, "value": value, "unit": unit, "reference": self.reference, "ratio": ratio, "goal": goal, "met": met })
            );
            return;
        }
        let against = match (self.reference, ratio) {
            (Some(reference), Some(ratio)) => format!("reference {reference:.3}, ratio {ratio:.2}"),
            _ => String::new(),
        };
        let goal = match self.goal {
            Some((goal, true)) => format!("goal {goal}: met"),
            Some((goal, false)) => format!("goal {goal}: NOT met"),
            None => String::new(),
        };
        println!("{name:56} {value:>10.3} {unit:5} {against:34} {goal}");
    }
}

/// The value below which this part of all values lies.
pub(crate) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let index = (last as f64 * part).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}
