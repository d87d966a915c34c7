//! `archive …`, as a person types it.

use super::Task;
use super::tables::{EnableArgs, SelfTestArgs, TiersArgs, span};
use crate::command::{ArchiveAct, Command, RecordDays, RestoreRecordsOf, RetrieveOf, SpeedOf, TtlOf};
use crate::exit::Failure;
use crate::output::Style;
use crate::when::{day, moment};
use clap::{Args, Subcommand, ValueEnum};
use engine::limits::{RETRIEVED_DAYS, RETRIEVED_DAYS_MAX};
use lifecycle::time::UnixMs;

/// `archive …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveVerb {
    /// List archived records
    Ls {
        /// Of this service, as the configuration calls it
        service: String,
        /// Which were deleted on these days
        #[command(flatten)]
        days: DaysArgs,
        /// Only those that were deleted by this: user or ttl
        #[arg(long, value_name = "user|ttl")]
        cause: Option<String>,
        /// What lies in archive tiers
        #[command(flatten)]
        retrieve: RetrieveArgs,
    },
    /// Show one archived record: what was in it when it was deleted last
    Get {
        /// Of this service
        service: String,
        /// Its key: the values joined by `_`, as in USER#123_PROFILE
        key: String,
        /// Of this table, where several share the service
        #[arg(long, value_name = "TABLE")]
        from_table: Option<String>,
        /// Its newest deletion up to then
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// What lies in archive tiers
        #[command(flatten)]
        retrieve: RetrieveArgs,
    },
    /// Ask in SQL: SELECT … FROM deletions; a condition on `day` or `service` keeps other days unread
    Query {
        /// The statement, which may only read
        sql: String,
        /// Look only into this service's records
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Look only at what was deleted on these days
        #[command(flatten)]
        days: DaysArgs,
        /// Print CSV
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// What lies in archive tiers
        #[command(flatten)]
        retrieve: RetrieveArgs,
    },
    /// Count what was deleted in a month: by day, table and cause
    Report {
        /// Which month (UTC): 2026-10
        #[arg(long, value_name = "YYYY-MM")]
        month: String,
        /// Only of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Print CSV
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        /// Print a page with charts, which needs nothing else: redirect it into a file
        #[arg(long, conflicts_with_all = ["json", "csv"])]
        html: bool,
        /// What lies in archive tiers
        #[command(flatten)]
        retrieve: RetrieveArgs,
    },
    /// Take away a damaged pack whose records are all there as objects, a note of a gap, or refused lines of a feed; never a record
    Drop {
        /// Of this service
        service: String,
        /// The object's name, as `status` or a report gives it
        object: String,
    },
    /// Pack records into Parquet now, whatever the configuration's schedule is; nothing is removed but what it says
    Pack {
        /// Of this service
        service: String,
        /// Which were deleted on these days
        #[command(flatten)]
        days: DaysArgs,
        /// Only say what would be packed
        #[arg(long)]
        dry_run: bool,
    },
    /// Put records back into their table; what is there already is left alone
    Restore(RestoreRecordsArgs),
    /// Switch on what a table needs for its archive, its stream and its time to live; says first what it will do
    Enable(EnableArgs),
    /// Have the bucket move records to colder classes, and delete them, as the configuration says; shows first what changes
    Tiers(TiersArgs),
    /// Send a record of its own the whole way: put, deleted, archived, put back, compared
    SelfTest(SelfTestArgs),
}

/// Days of deletions.
#[derive(Debug, Args)]
pub(crate) struct DaysArgs {
    /// From this day (UTC) on: 2026-11-21, today, `30d ago`
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Up to this day, which is included
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
}

/// `archive restore …`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["key", "from", "to", "condition"]))]
pub(crate) struct RestoreRecordsArgs {
    /// Of this service
    service: String,
    /// Restore this record: the values of its key joined by `_`, as in USER#123_PROFILE
    #[arg(conflicts_with_all = ["from", "to", "cause", "condition"])]
    key: Option<String>,
    /// As it was at its newest deletion up to then [default: its newest]
    #[arg(long, value_name = "TIME", requires = "key", conflicts_with_all = ["from", "to"])]
    at: Option<String>,
    /// Or all that were deleted on these days
    #[command(flatten)]
    days: DaysArgs,
    /// Only those that were deleted by this: user or ttl
    #[arg(long, value_name = "user|ttl")]
    cause: Option<String>,
    /// Only if its newest deletion on these days meets this condition, in SQL over the columns of `archive query`: "item ->>
    /// '$.status' = 'paid' AND size > 1000"
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// Records of this table, where several share the service
    #[arg(long, value_name = "TABLE")]
    from_table: Option<String>,
    /// Into another table: dynamodb://TABLE, or dynamodb://SERVICE@TABLE
    #[arg(long, value_name = "dynamodb://TABLE")]
    to_table: Option<String>,
    /// Replace records that are in the table
    #[arg(long)]
    overwrite: bool,
    /// What becomes of a time to live that is over, and would delete the record again: strip, keep, or as long from now on as
    /// +30d
    #[arg(long, value_name = "strip|keep|+SPAN", default_value = "strip", allow_hyphen_values = true)]
    ttl: String,
    /// Put at most so many records a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// What lies in archive tiers
    #[command(flatten)]
    retrieve: RetrieveArgs,
}

/// What to do about records that lie in archive tiers.
#[derive(Debug, Args)]
pub(crate) struct RetrieveArgs {
    /// Ask archive tiers (GLACIER and deeper) for what they have, which costs money and takes hours [default: only say how much
    /// it is]
    #[arg(long, value_name = "SPEED")]
    retrieve: Option<SpeedArg>,
    /// For how many days it stays readable
    #[arg(long, value_name = "DAYS", requires = "retrieve", default_value_t = RETRIEVED_DAYS)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(RETRIEVED_DAYS_MAX)))]
    retrieve_days: u32,
    /// Wait until it has come: four days at most
    #[arg(long)]
    wait: bool,
}

/// How fast.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SpeedArg {
    /// In hours
    Standard,
    /// In up to two days, for less money
    Bulk,
    /// In minutes, for more; not from the deepest tiers
    Expedited,
}

impl RetrieveArgs {
    pub(super) fn of(&self) -> RetrieveOf {
        let speed = self.retrieve.map(|speed| match speed {
            SpeedArg::Standard => SpeedOf::Standard,
            SpeedArg::Bulk => SpeedOf::Bulk,
            SpeedArg::Expedited => SpeedOf::Expedited,
        });
        RetrieveOf { speed, days: self.retrieve_days, wait: self.wait }
    }
}

impl DaysArgs {
    fn days(&self, now: UnixMs) -> Result<RecordDays, Failure> {
        let read = |text: &Option<String>| {
            text.as_deref().map(|text| day(text, now).map(|at| at.0).map_err(Failure::usage)).transpose()
        };
        let days = RecordDays { from: read(&self.from)?, to: read(&self.to)? };
        match days {
            RecordDays { from: Some(from), to: Some(to) } if from > to => {
                Err(Failure::usage("--from is later than --to: no day lies between them"))
            }
            days => Ok(days),
        }
    }
}

impl ArchiveVerb {
    /// Another form than the usual one, if one is asked for.
    pub(super) fn style(&self) -> Option<Style> {
        match self {
            ArchiveVerb::Query { csv: true, .. } | ArchiveVerb::Report { csv: true, .. } => Some(Style::Csv),
            ArchiveVerb::Report { html: true, .. } => Some(Style::Html),
            _ => None,
        }
    }

    /// Reads times; relative ones count from `now`.
    pub(super) fn task(self, now: UnixMs) -> Result<Task, Failure> {
        let at = |text: Option<String>| text.map(|text| moment(&text, now).map_err(Failure::usage)).transpose();
        let act = match self {
            ArchiveVerb::Ls { service, days, cause, retrieve } => {
                ArchiveAct::Ls { service, days: days.days(now)?, cause, retrieve: retrieve.of() }
            }
            ArchiveVerb::Query { sql, service, days, csv: _, retrieve } => {
                ArchiveAct::Query { sql, service, days: days.days(now)?, retrieve: retrieve.of() }
            }
            ArchiveVerb::Report { month, service, csv: _, html: _, retrieve } => {
                ArchiveAct::Report { service, month, retrieve: retrieve.of() }
            }
            ArchiveVerb::Drop { service, object } => ArchiveAct::Drop { service, object },
            ArchiveVerb::Pack { service, days, dry_run } => {
                ArchiveAct::Pack { service, days: days.days(now)?, dry_run }
            }
            ArchiveVerb::Get { service, key, from_table: table, at: then, retrieve } => {
                ArchiveAct::Get { service, table, key, at: at(then)?.map(|at| at.0), retrieve: retrieve.of() }
            }
            ArchiveVerb::Enable(args) => return Ok(Task::Enable(args.enable()?)),
            ArchiveVerb::Tiers(args) => return Ok(Task::Tiers(args.tiering())),
            ArchiveVerb::SelfTest(args) => args.act()?,
            ArchiveVerb::Restore(args) => {
                let ttl = match args.ttl.as_str() {
                    "strip" => TtlOf::Strip,
                    "keep" => TtlOf::Keep,
                    other => match other.strip_prefix('+') {
                        Some(text) => TtlOf::Extend(span("--ttl", text)?),
                        None => {
                            let why = format!("--ttl {other} has no meaning: write strip, keep, or such as +30d");
                            return Err(Failure::usage(why));
                        }
                    },
                };
                ArchiveAct::Restore(RestoreRecordsOf {
                    service: args.service,
                    key: args.key,
                    at: at(args.at)?.map(|at| at.0),
                    days: args.days.days(now)?,
                    cause: args.cause,
                    condition: args.condition,
                    from_table: args.from_table,
                    to: args.to_table,
                    overwrite: args.overwrite,
                    ttl,
                    rate: args.rate,
                    dry_run: args.dry_run,
                    retrieve: args.retrieve.of(),
                })
            }
        };
        Ok(Task::Command(Command::Archive(act)))
    }
}
