//! The engine's counters as metrics of CloudWatch: one JSON line for each policy and invocation in the log, in the embedded
//! metric format, from which CloudWatch makes metrics by itself. No call, and nothing to flush when the function is frozen.

use engine::ports::metrics::Counters;
use lifecycle::time::UnixMs;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Tells what was counted since it was last asked.
pub(crate) struct Embedded {
    namespace: String,
    function: String,
    told: Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>,
}

impl Embedded {
    pub(crate) fn new(namespace: &str, function: &str) -> Embedded {
        Embedded { namespace: namespace.to_owned(), function: function.to_owned(), told: Mutex::default() }
    }

    /// Writes what the counters have grown by, and `more`, for one policy or, without one, for the function. Nothing where
    /// nothing was counted.
    pub(crate) fn tell(&self, now: UnixMs, policy: Option<&str>, counters: &Counters, more: &[(&'static str, u64)]) {
        let Some(line) = self.line(now, policy, counters, more) else { return };
        // The log is all there is to complain to.
        if let Err(error) = writeln!(std::io::stdout().lock(), "{line}") {
            tracing::warn!("metrics could not be written: {error}");
        }
    }

    fn line(
        &self,
        now: UnixMs,
        policy: Option<&str>,
        counters: &Counters,
        more: &[(&'static str, u64)],
    ) -> Option<Value> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counters.snapshot();
        let before = told.insert(policy.unwrap_or_default().to_owned(), counted.clone()).unwrap_or_default();
        let grown = counted.iter().map(|(name, n)| (*name, n - before.get(name).copied().unwrap_or(0)));
        let values: BTreeMap<&str, u64> = grown.chain(more.iter().copied()).filter(|(_, n)| *n > 0).collect();
        if values.is_empty() {
            return None;
        }
        let metrics: Vec<Value> = values.keys().map(|name| json!({ "Name": name, "Unit": unit(name) })).collect();
        let mut line: Map<String, Value> = values.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        line.insert("function".to_owned(), json!(self.function));
        let mut dimensions = vec!["function"];
        if let Some(policy) = policy {
            line.insert("policy".to_owned(), json!(policy));
            dimensions.push("policy");
        }
        let directive = json!({ "Namespace": self.namespace, "Dimensions": [dimensions], "Metrics": metrics });
        line.insert("_aws".to_owned(), json!({ "Timestamp": now.0, "CloudWatchMetrics": [directive] }));
        Some(Value::Object(line))
    }
}

fn unit(name: &str) -> &'static str {
    match name {
        name if name.ends_with("bytes") => "Bytes",
        name if name.ends_with("_ms") => "Milliseconds",
        _ => "Count",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::ports::metrics::{Counter, Metrics};

    #[test]
    fn a_line_has_what_was_counted_since_the_last_one_in_the_embedded_format() {
        let (embedded, counters) = (Embedded::new("Afterimage", "replicator"), Counters::default());
        assert_eq!(embedded.line(UnixMs(7), Some("docs"), &counters, &[]), None);
        counters.add(Counter::Copies, 2);
        counters.add(Counter::CopiedBytes, 10);
        let line = embedded.line(UnixMs(7), Some("docs"), &counters, &[("duration_ms", 5)]).unwrap();
        let expected = json!({
            "_aws": { "Timestamp": 7, "CloudWatchMetrics": [{
                "Namespace": "Afterimage",
                "Dimensions": [["function", "policy"]],
                "Metrics": [
                    { "Name": "copied_bytes", "Unit": "Bytes" },
                    { "Name": "copies", "Unit": "Count" },
                    { "Name": "duration_ms", "Unit": "Milliseconds" },
                ],
            }] },
            "function": "replicator", "policy": "docs", "copies": 2, "copied_bytes": 10, "duration_ms": 5,
        });
        assert_eq!(line, expected);
        counters.add(Counter::Copies, 1);
        let line = embedded.line(UnixMs(8), Some("docs"), &counters, &[]).unwrap();
        assert_eq!((&line["copies"], line.get("copied_bytes")), (&json!(1), None));
        assert_eq!(embedded.line(UnixMs(9), None, &Counters::default(), &[]), None);
    }
}
