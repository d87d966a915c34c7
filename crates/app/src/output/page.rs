//! A report as a page: one file with its styles and charts in it, which needs no network and can be kept or sent.

use crate::answer::{Answer, Deletions, DeletionsLine};
use indicatif::HumanBytes;
use lifecycle::time::UnixMs;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition,
    TRANSPARENT, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::collections::{BTreeMap, BTreeSet};

/// Colours of the causes, also apart in grey: by users, by the time to live.
const CAUSES: [(&str, &str, RGBColor); 2] =
    [("user", "by users", RGBColor(0x1f, 0x5f, 0xa8)), ("ttl", "by time to live", RGBColor(0xf0, 0xa8, 0x3c))];
const CHART: (u32, u32) = (920, 260);
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}\
    table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:left}\
    td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto}.bad{color:#a01818}\
    tfoot td{font-weight:600}";

/// The page of an answer; one that is no report is shown as text.
pub(super) fn page(answer: &Answer) -> String {
    match answer {
        Answer::Deletions(of) => deletions(of).into_string(),
        other => html! { (DOCTYPE) pre { (super::text::answer(other)) } }.into_string(),
    }
}

fn deletions(of: &Deletions) -> Markup {
    let title = format!("Deleted records, {}", of.month);
    let tables: BTreeSet<(&str, &str)> =
        of.lines.iter().map(|line| (line.service.as_str(), line.table.as_str())).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p { "Made on " (UnixMs(of.made_at_ms)) ". Days are UTC." }
                @if of.cancelled { p.bad { "This report was stopped, and is not whole." } }
                (summary(of))
                @for (service, table) in tables {
                    @let lines: Vec<&DeletionsLine> =
                        of.lines.iter().filter(|line| line.service == service && line.table == table).collect();
                    h2 { (table) " (" (service) ")" }
                    (PreEscaped(chart(&of.month, &lines).unwrap_or_default()))
                    (by_day(&lines))
                }
                @if !of.damaged.is_empty() {
                    h2.bad { "Not counted" }
                    p { "These archived records do not read back as what was archived:" }
                    ul { @for item in &of.damaged { li { code { (item.object) } ": " (item.why) } } }
                }
                @if !of.passed_over.is_empty() {
                    h2.bad { "Damaged, and not needed" }
                    p { "The records of these packs are counted: they were read from their objects." }
                    ul { @for item in &of.passed_over { li { code { (item.object) } ": " (item.why) } } }
                }
            }
        }
    }
}

/// Tables, and all of them together.
fn summary(of: &Deletions) -> Markup {
    let mut sums: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
    for line in &of.lines {
        let sum = sums.entry((&line.service, &line.table)).or_default();
        if line.cause == "user" {
            sum.0 += line.records
        } else {
            sum.1 += line.records
        }
        sum.2 += line.bytes;
    }
    let all = sums.values().fold((0, 0, 0), |all, sum| (all.0 + sum.0, all.1 + sum.1, all.2 + sum.2));
    html! {
        @if sums.is_empty() { p { "Nothing was deleted." } }
        @else {
            table {
                thead { tr {
                    th { "Service" } th { "Table" } th.n { "By users" } th.n { "By time to live" } th.n { "Archived" }
                } }
                tbody {
                    @for ((service, table), (user, ttl, bytes)) in &sums {
                        tr {
                            td { (service) } td { (table) } td.n { (user) } td.n { (ttl) }
                            td.n { (HumanBytes(*bytes).to_string()) }
                        }
                    }
                }
                tfoot { tr {
                    td colspan="2" { "All" } td.n { (all.0) } td.n { (all.1) } td.n { (HumanBytes(all.2).to_string()) }
                } }
            }
        }
    }
}

fn by_day(lines: &[&DeletionsLine]) -> Markup {
    let days: BTreeSet<&str> = lines.iter().map(|line| line.day.as_str()).collect();
    html! {
        table {
            thead { tr { th { "Day" } th.n { "By users" } th.n { "By time to live" } th.n { "Archived" } } }
            tbody {
                @for day in days {
                    @let bytes = lines.iter().filter(|line| line.day == day).map(|line| line.bytes).sum();
                    tr {
                        td { (day) }
                        @for (cause, ..) in CAUSES { td.n { (records(lines, day, cause)) } }
                        td.n { (HumanBytes(bytes).to_string()) }
                    }
                }
            }
        }
    }
}

fn records(lines: &[&DeletionsLine], day: &str, cause: &str) -> u64 {
    lines.iter().filter(|line| line.day == day && line.cause == cause).map(|line| line.records).sum()
}

/// A bar for each day of the month, its causes on top of each other; `None`: it could not be drawn, and the table says it all.
fn chart(month: &str, lines: &[&DeletionsLine]) -> Option<String> {
    let first: jiff::civil::Date = format!("{month}-01").parse().ok()?;
    let days = i32::from(first.days_in_month());
    let of_day = |day: i32, cause: &str| records(lines, &format!("{month}-{day:02}"), cause);
    let highest = (1..=days).map(|day| CAUSES.iter().map(|(cause, ..)| of_day(day, cause)).sum::<u64>()).max()?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, CHART).into_drawing_area();
        area.fill(&WHITE).ok()?;
        // Not whole numbers: the library multiplies those until they overflow.
        let top = (highest.max(1) as f64) * 1.15;
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0..days, 0.0..top)
            .ok()?;
        let font = ("sans-serif", 13).into_font();
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(1)
            .x_label_formatter(&|_| String::new())
            .light_line_style(TRANSPARENT)
            // A record is whole, and so is every line that has a number.
            .y_label_formatter(&|n: &f64| if n.fract() == 0.0 { format!("{n:.0}") } else { String::new() })
            .label_style(font.clone())
            .draw()
            .ok()?;
        let mut below: Vec<u64> = vec![0; usize::try_from(days).ok()?];
        for (cause, name, colour) in CAUSES {
            let bars = (1..=days).zip(&mut below).map(|(day, below)| {
                let from = *below;
                *below += of_day(day, cause);
                let mut bar = Rectangle::new([(day - 1, from as f64), (day, *below as f64)], colour.filled());
                bar.set_margin(0, 0, 3, 3);
                bar
            });
            let legend = move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled());
            chart.draw_series(bars).ok()?.label(name).legend(legend);
        }
        let (legend, under) = (SeriesLabelPosition::UpperRight, Pos::new(HPos::Center, VPos::Top));
        chart
            .configure_series_labels()
            .position(legend)
            .background_style(WHITE)
            .label_font(font.clone())
            .draw()
            .ok()?;
        // Under the middle of each bar, where the library's own labels stand at its edge.
        for day in 1..=days {
            let (left, y) = chart.backend_coord(&(day - 1, 0.0));
            let (right, _) = chart.backend_coord(&(day, 0.0));
            let style = font.clone().color(&BLACK).pos(under);
            area.draw_text(&day.to_string(), &style, (i32::midpoint(left, right), y + 6)).ok()?;
        }
        area.present().ok()?;
    }
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(table: &str, day: &str, cause: &str, records: u64) -> DeletionsLine {
        let (service, table, day, cause) = ("orders".to_owned(), table.to_owned(), day.to_owned(), cause.to_owned());
        DeletionsLine { service, table, day, cause, records, bytes: 500 }
    }

    #[test]
    fn a_month_is_a_page_with_a_chart_for_each_table_and_nothing_from_elsewhere() {
        let lines = vec![
            line("Orders", "2026-10-01", "ttl", 700),
            line("Orders", "2026-10-01", "user", 20),
            line("Orders", "2026-10-31", "user", 1),
            line("<script>", "2026-10-02", "user", 3),
        ];
        let of = Deletions { month: "2026-10".to_owned(), lines, ..Deletions::default() };
        let page = page(&Answer::Deletions(of));
        assert_eq!(page.matches("<svg").count(), 2);
        // Two bars of one day, one of another.
        let bars = page.matches("#1F5FA8").count() + page.matches("#F0A83C").count();
        assert!(bars >= 31 * 2, "{bars}");
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(
            !page.contains("http://")
                || page.matches("http://").count() == page.matches("http://www.w3.org/2000/svg").count()
        );
        assert!(page.contains("<td class=\"n\">700</td>") && page.contains("<td>2026-10-31</td>"));
    }

    /// From a record to more than any table has.
    #[test]
    fn charts_hold_any_number() {
        for records in [1, 2, 9, 1_000, 10_000_000_000, u64::from(u32::MAX) << 20] {
            let line = line("Orders", "2026-02-28", "ttl", records);
            assert!(chart("2026-02", &[&line]).is_some_and(|svg| svg.contains("#F0A83C")), "{records}");
        }
    }

    #[test]
    fn a_month_without_deletions_says_so() {
        let page = page(&Answer::Deletions(Deletions { month: "2026-02".to_owned(), ..Deletions::default() }));
        assert!(page.contains("Nothing was deleted."));
    }
}
