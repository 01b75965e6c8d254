use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::Event;

/// Upper bounds of a sandbox's stages: from a fast machine's first to the boot limit's end.
const STAGE_SECONDS: [f64; 12] = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const CONVERSION_SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Longest value of a label, and most values of one: what shims send is the node's own, and a fault in it must not fill the memory.
const MAX_LABEL_BYTES: usize = 64;
const MAX_LABELS: usize = 64;

type Label = [(&'static str, String); 1];

/// All that is counted.
pub struct Metrics {
    registry: Registry,
    stages: Family<Label, Histogram, fn() -> Histogram>,
    denials: Family<Label, Counter>,
    failures: Family<Label, Counter>,
    refused: Counter,
    conversions: Family<Label, Counter>,
    conversion_seconds: Histogram,
    labels: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("anchorhold");
        let stages: Family<Label, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS));
        let (denials, failures, conversions) =
            (Family::<Label, Counter>::default(), Family::default(), Family::default());
        let refused = Counter::default();
        let conversion_seconds = Histogram::new(CONVERSION_SECONDS);
        registry.register_with_unit(
            "sandbox_stage",
            "Time from a VM's start to a stage of its sandbox",
            Unit::Seconds,
            stages.clone(),
        );
        let text = "Requests that policies in guests denied";
        registry.register("policy_denials", text, denials.clone());
        let text = "Sandboxes and requests that failed otherwise, by whose fault";
        registry.register("sandbox_failures", text, failures.clone());
        let text = "Events that were none";
        registry.register("events_refused", text, refused.clone());
        let text = "Layers converted to block images, and those that were not";
        registry.register("layer_conversions", text, conversions.clone());
        registry.register_with_unit(
            "layer_conversion",
            "Time that a layer's conversion took",
            Unit::Seconds,
            conversion_seconds.clone(),
        );
        let labels = std::sync::Mutex::default();
        Self {
            registry,
            stages,
            denials,
            failures,
            refused,
            conversions,
            conversion_seconds,
            labels,
        }
    }
}

impl Metrics {
    /// Counts what a shim told.
    pub fn count(&self, event: &Event) {
        let known = |name: &str| self.label(name);
        match event {
            Event::Stage { name, seconds } => {
                // A time that is none would make every sum none.
                let Some(name) = known(name).filter(|_| (0.0..1e6).contains(seconds)) else {
                    return self.refused();
                };
                self.stages.get_or_create(&[("stage", name)]).observe(*seconds);
            }
            Event::Denied { method } => match known(method) {
                Some(method) => drop(self.denials.get_or_create(&[("method", method)]).inc()),
                None => self.refused(),
            },
            Event::Failed { blame } => match known(blame) {
                Some(blame) => drop(self.failures.get_or_create(&[("blame", blame)]).inc()),
                None => self.refused(),
            },
            // not for who counts
            Event::Span(_) => {}
        }
    }

    /// Counts a layer's conversion.
    pub fn converted(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "converted" } else { "failed" };
        self.conversions.get_or_create(&[("result", result.to_owned())]).inc();
        self.conversion_seconds.observe(took.as_secs_f64());
    }

    /// Counts something that should have been an event.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// All of it in Prometheus' text format (OpenMetrics 1.0).
    ///
    /// # Errors
    /// Never of a text in memory.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn label(&self, value: &str) -> Option<String> {
        let mut labels = self.labels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = labels.contains(value);
        if value.len() > MAX_LABEL_BYTES || (!known && labels.len() >= MAX_LABELS) {
            return None;
        }
        labels.insert(value.to_owned());
        Some(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_shown() {
        let metrics = Metrics::default();
        let stage = |seconds| Event::Stage { name: "agent ready".into(), seconds };
        metrics.count(&stage(0.3));
        metrics.count(&stage(3.0));
        metrics.count(&stage(f64::NAN));
        metrics.count(&Event::Denied { method: "ExecProcess".into() });
        metrics.count(&Event::Failed { blame: "policy".into() });
        metrics.converted(true, Duration::from_millis(20));
        let text = metrics.text().unwrap();
        for line in [
            "anchorhold_sandbox_stage_seconds_bucket{le=\"0.4\",stage=\"agent ready\"} 1",
            "anchorhold_sandbox_stage_seconds_count{stage=\"agent ready\"} 2",
            "anchorhold_policy_denials_total{method=\"ExecProcess\"} 1",
            "anchorhold_sandbox_failures_total{blame=\"policy\"} 1",
            "anchorhold_events_refused_total 1",
            "anchorhold_layer_conversions_total{result=\"converted\"} 1",
            "anchorhold_layer_conversion_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_fault_in_what_is_sent_does_not_grow_without_end() {
        let metrics = Metrics::default();
        for number in 0..1000 {
            metrics.count(&Event::Denied { method: format!("m{number}") });
        }
        metrics.count(&Event::Denied { method: "m".repeat(65) });
        metrics.count(&Event::Denied { method: "m1".into() });
        let text = metrics.text().unwrap();
        assert_eq!(text.matches("policy_denials_total{").count(), 64);
        assert!(text.contains("anchorhold_policy_denials_total{method=\"m1\"} 2"));
        assert!(text.contains("anchorhold_events_refused_total 937"));
    }
}
