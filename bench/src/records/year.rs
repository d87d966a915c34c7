//! A year of packed days in an S3 server: one day's query and one record's look-up, each beside the same on an archive that has
//! that day alone. The commands are those of the real program.

use super::made::{SERVICE, TABLE, key, made, recorded};
use super::program::Program;
use crate::aws::servers::{Beside, Servers};
use crate::client::Client;
use crate::stats::{Table, median, median_ratio};
use anyhow::{Result, ensure};
use bytes::Bytes;
use engine::format::packed::{Original, PackWriter, row_of};
use engine::steps::packs::PackPlace;
use jiff::civil::Date;
use lifecycle::archive::{ServiceName, hash_of};
use lifecycle::ids::ETag;
use serde_json::Value;
use std::path::Path;

const DAYS: usize = 365;
/// The last day of the year.
const LAST: Date = jiff::civil::date(2026, 6, 15);
/// How many days before it the day lies that is asked for.
const BACK: usize = 180;
const DAY_MS: usize = 86_400_000;

/// Makes both archives, runs all rounds, and prints the medians.
pub(crate) async fn run(beside: &Beside, folder: &Path, rounds: usize, records: usize) -> Result<()> {
    let servers = Servers::start(beside, folder)?;
    let (year, day) = (servers.make_bucket("year").await?, servers.make_bucket("day").await?);
    let of_day = records / DAYS;
    let asked = day_back(BACK)?;
    for back in (0..DAYS).rev() {
        let pack = packed(back, of_day)?;
        put(&year, back, pack.clone()).await?;
        if back == BACK {
            put(&day, back, pack).await?;
        }
    }
    eprintln!("{} records are packed in {DAYS} days", of_day * DAYS);
    let program = Program::new(beside, &servers, folder)?;
    let sides = [program.with_archive("year")?, program.with_archive("day")?];
    let (partition, sort) = key(BACK * of_day + of_day / 2);
    let (one, at) = (format!("{partition}_{sort}"), format!("{asked}T23:59:59Z"));
    let count = format!("SELECT cause, count(*) AS n FROM deletions WHERE day = '{asked}' GROUP BY cause");
    let images = format!(
        "SELECT item ->> '$.status' AS status, count(*) AS n, sum(item ->> '$.total') AS total FROM deletions \
         WHERE day = '{asked}' GROUP BY 1"
    );
    let asks: [(&str, Vec<&str>); 4] = [
        ("query of a day, images unread", vec!["archive", "query", &count, "--json"]),
        ("query of a day, images read", vec!["archive", "query", &images, "--json"]),
        ("look-up of a record, its day said", vec!["archive", "get", SERVICE, &one, "--at", &at, "--json"]),
        ("look-up of a record, half a year back", vec!["archive", "get", SERVICE, &one, "--json"]),
    ];
    let mut table = Table::new(&["what", "year, ms", "that day alone, ms", "ratio", "CPU ratio"]);
    for (what, words) in asks {
        let (mut times, mut cpus) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let [(year, out), (day, same)] = [sides[0].ran(&words)?, sides[1].ran(&words)?];
            ensure!(answer_of(&out)? == answer_of(&same)?, "{what}: {out} of the year, {same} of the day");
            times.push((year.seconds * 1e3, day.seconds * 1e3));
            cpus.push((year.cpu_seconds, day.cpu_seconds));
        }
        let (year, day): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
        let figures = [median(&year), median(&day)].map(|ms| format!("{ms:.0}"));
        let ratios = [median_ratio(&times), median_ratio(&cpus)].map(|ratio| format!("{ratio:.2}"));
        table.row([vec![what.to_owned()], figures.to_vec(), ratios.to_vec()].concat());
    }
    let all = of_day * DAYS;
    table.print(&format!(
        "A year of {all} packed records beside one of its days ({of_day}); medians of {rounds} rounds"
    ));
    println!("aim: one day's query at most 1.5 times the same over that day alone");
    Ok(())
}

/// What was found, one by one: rows, or a record; not in how many days it was looked for.
fn answer_of(out: &str) -> Result<Vec<Value>> {
    let mut said = serde_json::Deserializer::from_str(out).into_iter().collect::<Result<Vec<Value>, _>>()?;
    said.retain(|line| line.get("days").is_none());
    Ok(said)
}

fn day_back(back: usize) -> Result<Date> {
    Ok(LAST.checked_sub(jiff::Span::new().try_days(i64::try_from(back)?)?)?)
}

fn place(back: usize) -> Result<PackPlace> {
    let day = day_back(back)?.strftime("%Y/%m/%d").to_string();
    Ok(PackPlace { service: ServiceName::new(SERVICE)?, day, number: 1 })
}

/// The pack of a day, as `archive pack` would write it.
fn packed(back: usize, of_day: usize) -> Result<Bytes> {
    let (table, begins) =
        (recorded()?, day_back(back)?.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_millisecond());
    let mut originals = Vec::with_capacity(of_day);
    for n in 0..of_day {
        let made = made(back * of_day + n, begins + (n * (DAY_MS / of_day)) as i64, &table)?;
        let etag = ETag(hash_of(&made.body)[..32].to_owned());
        originals.push(Original { object: made.record.deletion.plain_name(), etag, body: made.body });
    }
    originals.sort_by(|a, b| a.object.cmp(&b.object));
    let mut file = Vec::new();
    let mut writer = PackWriter::new(&mut file)?;
    for original in &originals {
        writer.add(row_of(original)?)?;
    }
    writer.finish()?;
    ensure!(!file.is_empty(), "{TABLE}: no pack was written");
    Ok(file.into())
}

async fn put(bucket: &Client, back: usize, pack: Bytes) -> Result<()> {
    bucket.put(bucket.signed_put(place(back)?.name().as_str()), pack).await
}
