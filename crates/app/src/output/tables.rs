//! Answers about a person's tables, for people.

use super::text::{line, printable};
use crate::answer::{Enabled, RuleView, SelfTested, Tiered, TieredBucket};
use lifecycle::time::SpanMs;

/// `archive enable`.
pub(super) fn enabled(text: &mut String, of: &Enabled) {
    let Enabled { table, switches, left, refused, done, configuration } = of;
    for why in refused {
        line(text, format_args!("REFUSED: {table}: {why}"));
    }
    for why in left {
        line(text, format_args!("{table}: {why}"));
    }
    if !refused.is_empty() {
        line(text, format_args!("{table}: nothing was changed"));
        return;
    }
    let verb = if *done { "done" } else { "this will be done" };
    match switches.as_slice() {
        [] => line(text, format_args!("{table}: nothing is to be done")),
        switches => {
            line(text, format_args!("{table}: {verb}:"));
            for switch in switches {
                line(text, format_args!("  {switch}"));
            }
        }
    }
    if let Some(lines) = configuration.as_ref().filter(|_| *done || switches.is_empty()) {
        line(
            text,
            format_args!("\nits deleted records are archived once this stands in the configuration:\n\n{lines}"),
        );
    }
}

/// `archive tiers`.
pub(super) fn tiered(text: &mut String, of: &Tiered) {
    for bucket in &of.buckets {
        let TieredBucket { bucket, rules, remarks, warnings, refused, is_open, done } = bucket;
        let verb = match (is_open, done) {
            (_, true) => "the bucket has these lifecycle rules now",
            (true, false) => "the bucket's lifecycle rules will be",
            (false, false) => "nothing is to be done; the bucket's lifecycle rules",
        };
        line(text, format_args!("{bucket}: {verb}:"));
        for RuleView { id, change, does, was } in rules {
            let mark = match change.as_str() {
                "added" => "+",
                "changed" => "~",
                "removed" => "-",
                _ => " ",
            };
            line(text, format_args!("{mark} {}  {}", printable(id), printable(does)));
            if let Some(was) = was {
                line(text, format_args!("    was  {}", printable(was)));
            }
        }
        if rules.is_empty() {
            line(text, format_args!("  none"));
        }
        for remark in remarks {
            line(text, format_args!("  {remark}"));
        }
        for warning in warnings {
            line(text, format_args!("! {}", printable(warning)));
        }
        for why in refused {
            line(text, format_args!("REFUSED: {why}"));
        }
    }
}

/// `archive self-test`.
pub(super) fn self_tested(text: &mut String, of: &SelfTested) {
    for step in &of.steps {
        let (mark, took) = (if step.success { "ok    " } else { "FAILED" }, SpanMs(step.took_ms));
        line(text, format_args!("{mark}  {:>8}  {}: {}", took.to_string(), step.step, printable(&step.told)));
        if let Some(remedy) = &step.remedy {
            line(text, format_args!("        {remedy}"));
        }
    }
    let verdict = match of.is_success() {
        true => "deleted records of it are archived, and come back as they were",
        false => "DO NOT RELY on its archive yet",
    };
    line(text, format_args!("{}: {verdict}", of.table));
}
