//! `archive enable`, `archive self-test` and `record …`, as a person types them.

use crate::command::{ArchiveAct, Command, RecordAct, SelfTestOf};
use crate::exit::Failure;
use clap::{Args, Subcommand};
use engine::config::span::{format_span, parse_span};
use engine::ports::tables::StreamView;
use lifecycle::time::SpanMs;

/// How long a self-test waits, unless it is told otherwise.
const WITHIN: &str = "5m";
/// The same for the time to live: AWS deletes within a few days of it.
const WITHIN_BY_TTL: &str = "4d";
/// Longer than anybody plans for, in records.
const SPAN_MAX: SpanMs = SpanMs::days(100 * 365);

/// `archive enable …`.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// The table: dynamodb://TABLE, dynamodb://SERVICE@TABLE, or its name
    table: String,
    /// Switch its time to live on, too, by this attribute
    #[arg(long, value_name = "ATTRIBUTE")]
    ttl: Option<String>,
    /// What the stream shall carry: OLD_IMAGE or NEW_AND_OLD_IMAGES
    #[arg(long, value_name = "VIEW", default_value = "OLD_IMAGE")]
    view: String,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// `archive tiers …`.
#[derive(Debug, Args)]
pub(crate) struct TiersArgs {
    /// Of this service, as the configuration calls it
    service: String,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// What `archive tiers` is asked for.
pub(crate) struct Tiering {
    /// The service, as a person names it.
    pub(crate) service: String,
    /// Without asking.
    pub(crate) yes: bool,
}

impl TiersArgs {
    pub(super) fn tiering(self) -> Tiering {
        let TiersArgs { service, yes } = self;
        Tiering { service, yes }
    }
}

/// `archive self-test …`.
#[derive(Debug, Args)]
pub(crate) struct SelfTestArgs {
    /// The table: dynamodb://TABLE, dynamodb://SERVICE@TABLE, or its name
    table: String,
    /// Let the table's time to live delete the record: AWS may take days for that
    #[arg(long)]
    ttl: bool,
    /// Wait at most so long for each step [default: 5m; with --ttl 4d]
    #[arg(long, value_name = "SPAN")]
    within: Option<String>,
}

/// `record …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordVerb {
    /// Mark a record, so that its table deletes it later and the archive catches it
    SoftDelete {
        /// Which
        #[command(flatten)]
        record: RecordArgs,
        /// How long it stays until then: 30d, 12h
        #[arg(long, value_name = "SPAN")]
        after: String,
    },
    /// Take that back, as long as the record is there
    Undelete {
        /// Which
        #[command(flatten)]
        record: RecordArgs,
    },
}

/// A record of a table.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The table: dynamodb://TABLE, dynamodb://SERVICE@TABLE, or its name
    table: String,
    /// Its key: a word for each attribute, as in pk=USER#123 sk=PROFILE, or DynamoDB's JSON: '{"pk":{"S":"USER#123"}}'
    #[arg(required = true)]
    key: Vec<String>,
}

/// What `archive enable` is asked for.
pub(crate) struct Enable {
    /// The table, as a person names it.
    pub(crate) table: String,
    /// What its stream shall carry: old images, alone or among others.
    pub(crate) view: StreamView,
    /// The attribute of its time to live, if that shall be on.
    pub(crate) ttl: Option<String>,
    /// Without asking.
    pub(crate) yes: bool,
}

impl EnableArgs {
    pub(super) fn enable(self) -> Result<Enable, Failure> {
        let EnableArgs { table, ttl, view, yes } = self;
        match StreamView::parse(&view).filter(|view| view.carries_old_images()) {
            Some(view) => Ok(Enable { table, view, ttl, yes }),
            None => {
                let fix = "an archive needs old images: write OLD_IMAGE or NEW_AND_OLD_IMAGES";
                Err(Failure::usage(format!("--view {view}: {fix}")))
            }
        }
    }
}

impl SelfTestArgs {
    pub(super) fn act(self) -> Result<ArchiveAct, Failure> {
        let SelfTestArgs { table, ttl, within } = self;
        let within = within.unwrap_or_else(|| if ttl { WITHIN_BY_TTL } else { WITHIN }.to_owned());
        Ok(ArchiveAct::SelfTest(SelfTestOf { table, ttl, within_ms: span("--within", &within)? }))
    }
}

impl RecordVerb {
    pub(super) fn command(self) -> Result<Command, Failure> {
        Ok(Command::Record(match self {
            RecordVerb::SoftDelete { record: RecordArgs { table, key }, after } => {
                RecordAct::SoftDelete { table, key, after_ms: span("--after", &after)? }
            }
            RecordVerb::Undelete { record: RecordArgs { table, key } } => RecordAct::Undelete { table, key },
        }))
    }
}

/// A span that an option gives, in milliseconds: more than nothing, and no more than people plan for.
pub(super) fn span(option: &str, text: &str) -> Result<u64, Failure> {
    let span = parse_span(text).filter(|span| (SpanMs::seconds(1)..=SPAN_MAX).contains(span));
    span.map(|span| span.0).ok_or_else(|| {
        let most = format_span(SPAN_MAX);
        Failure::usage(format!("{option} {text} is no span: write such as 30d, 12h, 5m, and at most {most}"))
    })
}
