//! Counts and times in Prometheus' text form (version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the request times' buckets, milliseconds.
const BOUNDS_MS: [u64; 8] = [1, 2, 5, 10, 20, 50, 200, 1000];

/// What is counted. Routes are those of the table, so the number of series is bounded.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<(&'static str, &'static str), Series>>);

#[derive(Default)]
struct Series {
    by_status: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS_MS.len()],
    count: u64,
    total: Duration,
}

impl Metrics {
    pub(crate) fn request(
        &self,
        method: &'static str,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.entry((method, route)).or_default();
        *series.by_status.entry(status).or_default() += 1;
        series.count += 1;
        series.total += took;
        for (bucket, bound) in series.buckets.iter_mut().zip(BOUNDS_MS) {
            *bucket += u64::from(took <= Duration::from_millis(bound));
        }
    }

    pub(crate) fn text(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = String::new();
        for (name, help, value) in gauges {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        text.push_str("# HELP anchorhold_requests_total Answered requests.\n# TYPE anchorhold_requests_total counter\n");
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, route), series) in all.iter() {
            for (status, count) in &series.by_status {
                let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
                let _ = writeln!(text, "anchorhold_requests_total{{{labels}}} {count}");
            }
        }
        let name = "anchorhold_request_seconds";
        let _ = writeln!(text, "# HELP {name} Time to answer.\n# TYPE {name} histogram");
        for ((method, route), series) in all.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            for (bound, count) in BOUNDS_MS.iter().zip(series.buckets) {
                let bound = Duration::from_millis(*bound).as_secs_f64();
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let (count, sum) = (series.count, series.total.as_secs_f64());
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ =
                writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
        }
        text
    }
}
