//! What the sides of one benchmark took, round by round, and the one table that is printed of it.

use crate::process::Took;
use crate::stats::{Table, median};
use std::collections::BTreeMap;

/// The figures of one side in one round.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    requests: f64,
    /// Busy cores: clients, S3, DynamoDB.
    busy: [f64; 3],
    peak_mib: f64,
}

/// All of them.
pub(crate) struct Lines {
    items: usize,
    item: &'static str,
    /// In the order in which they came.
    names: Vec<&'static str>,
    all: BTreeMap<&'static str, Vec<Figures>>,
}

impl Lines {
    /// Figures for each of so many items of a round.
    pub(crate) fn new(items: usize, item: &'static str) -> Lines {
        Lines { items, item, names: Vec::new(), all: BTreeMap::new() }
    }

    /// Adds a round of a side; says it in a line.
    pub(crate) fn add(&mut self, side: &'static str, took: &Took) -> String {
        let items = self.items as f64;
        let cores = |cpu: f64| cpu / took.seconds;
        let server = |n: usize| took.server_cpu.get(n).copied().map_or(0.0, cores);
        let figures = Figures {
            per_second: items / took.seconds,
            cpu_us: took.client_cpu * 1e6 / items,
            requests: took.sum("requests"),
            busy: [cores(took.client_cpu), server(0), server(1)],
            peak_mib: took.peak_mib as f64,
        };
        if !self.names.contains(&side) {
            self.names.push(side);
        }
        self.all.entry(side).or_default().push(figures);
        format!("{side}: {:.0} {}s/s, client CPU {:.0} µs", figures.per_second, self.item, figures.cpu_us)
    }

    fn of(&self, side: &str, what: impl Fn(&Figures) -> f64) -> Vec<f64> {
        self.all.get(side).map(|rounds| rounds.iter().map(what).collect()).unwrap_or_default()
    }

    /// Items a second, by round.
    pub(crate) fn rates(&self, side: &str) -> Vec<f64> {
        self.of(side, |figures| figures.per_second)
    }

    /// CPU of the clients per item in µs, by round.
    pub(crate) fn cpus(&self, side: &str) -> Vec<f64> {
        self.of(side, |figures| figures.cpu_us)
    }

    /// Requests, by round.
    pub(crate) fn requests(&self, side: &str) -> Vec<f64> {
        self.of(side, |figures| figures.requests)
    }

    /// The highest peak of a client's resident memory in MiB, by round.
    pub(crate) fn peaks(&self, side: &str) -> Vec<f64> {
        self.of(side, |figures| figures.peak_mib)
    }

    /// Prints the medians of every side.
    pub(crate) fn print(&self, title: &str) {
        let mut table = Table::new(&[
            "who",
            "per second",
            "client CPU, µs each",
            "API calls",
            "memory of a client, MiB",
            "busy cores: client",
            "S3",
            "DynamoDB",
            "together",
        ]);
        for name in &self.names {
            let busy = |n: usize| median(&self.of(name, |figures| figures.busy[n]));
            let together = median(&self.of(name, |figures| figures.busy.iter().sum()));
            let mut row = vec![(*name).to_owned(), format!("{:.0}", median(&self.rates(name)))];
            row.push(format!("{:.0}", median(&self.cpus(name))));
            row.push(format!("{:.0}", median(&self.requests(name))));
            row.push(format!("{:.0}", median(&self.of(name, |figures| figures.peak_mib))));
            row.extend([busy(0), busy(1), busy(2), together].map(|cores| format!("{cores:.2}")));
            table.row(row);
        }
        table.print(title);
    }
}
