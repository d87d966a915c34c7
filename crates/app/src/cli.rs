//! The command line: what a person types, and nothing about how it is done.

mod archive;
mod tables;

pub(crate) use self::tables::{Enable, Tiering};

use self::archive::ArchiveVerb;
use self::tables::RecordVerb;
use crate::command::{Command, DeadLetterAct, Restore, To, Undelete, What, Which};
use crate::exit::Failure;
use crate::output::Style;
use crate::remote::MissingTable;
use crate::when::moment;
use clap::{Args, Parser, Subcommand};
use engine::wrap::owned::Claim;
use lifecycle::time::UnixMs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Keeps what S3 buckets lose: timestamped copies, a catalog, and restores that work.
#[derive(Debug, Parser)]
#[command(name = "afterimage", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Where everything is.
    #[command(flatten)]
    pub(crate) place: Place,
    /// The verb.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where `--help` lists them, apart from a command's own.
const EVERYWHERE: &str = "Options of every command";

/// Arguments that every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Use this data folder [default: the configuration's, else ./afterimage-data]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Use this configuration file
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the S3 endpoint, make the copies and clean up; without a configuration, to try it out
    Serve {
        /// Listen on this address; port 0 takes any free port
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
        /// Take destination folders over from another data folder, which is lost or will never be served again; let mirrors
        /// delete what others left in buckets of services
        #[arg(long)]
        take_over: bool,
        /// Make the DynamoDB tables that policies name and that are not there
        #[arg(long)]
        make_tables: bool,
    },
    /// Write a commented configuration with values to trust
    Init {
        /// Where to
        #[arg(default_value = "afterimage.toml", value_name = "FILE")]
        file: PathBuf,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Say how everything stands
    Status {
        /// Exit with 1 when a person should look: something is late, waits too long, or was given up
        #[arg(long)]
        check: bool,
    },
    /// List the keys that have copies
    Ls {
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: String,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Show the copies of one key: what they are, and when what happens to them next
    History {
        /// The original's key
        key: String,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Write copies to where they are wanted; nothing newer is replaced unless asked for
    Restore(RestoreArgs),
    /// Bring removed objects back, with the history that is still there
    Undelete(UndeleteArgs),
    /// Say which copies are due and when they are purged
    Clean {
        /// Purge what is due now instead of waiting for the schedule (graces hold all the same)
        #[arg(long)]
        now: bool,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Let purging go on after a breaker has stopped it
    Release {
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Compare source, destination and catalog, and settle what differs
    Reconcile {
        /// Move the catalog aside first and make it again from the destination (only while `serve` is stopped)
        #[arg(long)]
        rebuild: bool,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Copy what was there before the policy and has no copy yet
    Backfill {
        /// Only keys under this prefix
        #[arg(long, value_name = "PREFIX", default_value = "")]
        prefix: String,
        /// Only of this policy
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
    },
    /// Read the whole journal and verify its chain
    Audit {
        /// Show so many of the newest lines
        #[arg(long, default_value_t = 20, value_name = "N")]
        lines: usize,
    },
    /// Look at archived records of tables, and put them back; set a table up for it, and test that
    #[command(subcommand)]
    Archive(ArchiveVerb),
    /// Delete a record of a table later, or take that back
    #[command(subcommand)]
    Record(RecordVerb),
    /// Look after events that could not be handled, and records that could not be archived
    #[command(subcommand)]
    Dlq(DlqVerb),
    /// Show or change the endpoint's keys
    #[command(subcommand)]
    Credentials(CredentialsVerb),
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Check the configuration and print what is in force
    Check,
}

/// `restore …`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["key", "prefix", "everything"]))]
#[command(group = clap::ArgGroup::new("which").args(["at", "copy"]))]
pub(crate) struct RestoreArgs {
    /// Restore this key
    key: Option<String>,
    /// Restore all keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Restore all keys of the policy
    #[arg(long)]
    everything: bool,
    /// What was current then: 2026-11-21T07:26:12Z, 2026-11-21, `2h ago` [default: the newest copy]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// This very copy, by its name as `history` shows it
    #[arg(long, value_name = "COPY_KEY", conflicts_with_all = ["prefix", "everything"])]
    copy: Option<String>,
    /// Where to: a folder, or local://BUCKET [default: back to the source]
    #[arg(long, value_name = "FOLDER|local://BUCKET")]
    to: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Replace objects that are newer than their copy
    #[arg(long)]
    overwrite: bool,
    /// Wait for copies that lie in an archive tier: minutes to days
    #[arg(long)]
    wait: bool,
    /// Of this policy [default: the one that knows the key]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

/// `undelete …`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["key", "prefix", "since"]))]
pub(crate) struct UndeleteArgs {
    /// Bring this key back
    key: Option<String>,
    /// Bring all removed keys that begin with this back
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Bring everything back that was removed since then
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Bring only the newest copy of each back into the history
    #[arg(long)]
    newest_only: bool,
    /// Of this policy [default: the ones that know the key]
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
}

/// `dlq …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqVerb {
    /// Name what could not be handled or archived
    List,
    /// Show one of them
    Show {
        /// Its number
        id: u64,
    },
    /// Put events back into the queue, and archive records after all
    Redrive(Letters),
    /// Forget them for good
    Drop(Letters),
}

/// Which dead letters.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("letters").required(true).args(["ids", "all"]))]
pub(crate) struct Letters {
    /// Their numbers
    ids: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// `credentials …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CredentialsVerb {
    /// Print the keys
    Show,
    /// Make new keys; the old ones stop working at once
    Rotate,
}

/// What to do: something about files here, or a command to a data folder.
pub(crate) enum Task {
    /// `serve`.
    Serve {
        /// Where to listen.
        listen: Option<SocketAddr>,
        /// Whose destination folders may be.
        claim: Claim,
        /// What to do about tables that are not there.
        missing_table: MissingTable,
    },
    /// `init`.
    Init {
        /// Where to.
        file: PathBuf,
    },
    /// `config check`.
    ConfigCheck,
    /// `reconcile --rebuild`.
    Rebuild {
        /// Only this policy.
        policy: Option<String>,
    },
    /// `archive enable`.
    Enable(Enable),
    /// `archive tiers`.
    Tiers(Tiering),
    /// Everything else.
    Command(Command),
}

impl Verb {
    /// Another form than the usual one, if one is asked for.
    pub(crate) fn style(&self) -> Option<Style> {
        match self {
            Verb::Archive(verb) => verb.style(),
            _ => None,
        }
    }

    /// Reads times and places; relative ones count from `now` and the working folder.
    pub(crate) fn task(self, now: UnixMs, working_folder: &Path) -> Result<Task, Failure> {
        let command = match self {
            Verb::Serve { listen, take_over, make_tables } => {
                let claim = if take_over { Claim::TakeOver } else { Claim::Own };
                let missing_table = if make_tables { MissingTable::Make } else { MissingTable::Refuse };
                return Ok(Task::Serve { listen, claim, missing_table });
            }
            Verb::Init { file } => return Ok(Task::Init { file }),
            Verb::Config(ConfigVerb::Check) => return Ok(Task::ConfigCheck),
            Verb::Reconcile { rebuild: true, policy } => return Ok(Task::Rebuild { policy }),
            Verb::Reconcile { rebuild: false, policy } => Command::Reconcile { policy },
            Verb::Backfill { prefix, policy } => Command::Backfill { policy, prefix },
            Verb::Status { check } => Command::Status { check },
            Verb::Ls { prefix, policy } => Command::Ls { policy, prefix },
            Verb::History { key, policy } => Command::History { policy, key },
            Verb::Restore(args) => Command::Restore(args.command(now, working_folder)?),
            Verb::Undelete(args) => Command::Undelete(args.command(now)?),
            Verb::Clean { now, policy } => Command::Clean { policy, now },
            Verb::Release { policy } => Command::Release { policy },
            Verb::Audit { lines } => Command::Audit { lines },
            Verb::Archive(verb) => return verb.task(now),
            Verb::Record(verb) => verb.command()?,
            Verb::Dlq(DlqVerb::List) => Command::DeadLetters(DeadLetterAct::List),
            Verb::Dlq(DlqVerb::Show { id }) => Command::DeadLetters(DeadLetterAct::Show { id }),
            Verb::Dlq(DlqVerb::Redrive(letters)) => {
                Command::DeadLetters(DeadLetterAct::Redrive { ids: letters.numbers() })
            }
            Verb::Dlq(DlqVerb::Drop(letters)) => Command::DeadLetters(DeadLetterAct::Drop { ids: letters.numbers() }),
            Verb::Credentials(CredentialsVerb::Show) => Command::Credentials { rotate: false },
            Verb::Credentials(CredentialsVerb::Rotate) => Command::Credentials { rotate: true },
        };
        Ok(Task::Command(command))
    }
}

impl Letters {
    fn numbers(self) -> Option<Vec<u64>> {
        (!self.all).then_some(self.ids)
    }
}

impl RestoreArgs {
    fn command(self, now: UnixMs, working_folder: &Path) -> Result<Restore, Failure> {
        let what = match (self.key, self.prefix) {
            (Some(key), _) => What::Key(key),
            (None, Some(prefix)) => What::Prefix(prefix),
            (None, None) => What::Everything,
        };
        let which = match (self.at, self.copy) {
            (Some(at), _) => Which::At(moment(&at, now).map_err(Failure::usage)?.0),
            (None, Some(copy)) => Which::Copy(copy),
            (None, None) => Which::Newest,
        };
        let to = match self.to {
            None => To::Source,
            Some(to) => place(&to, working_folder)?,
        };
        Ok(Restore {
            policy: self.policy,
            what,
            which,
            to,
            dry_run: self.dry_run,
            overwrite: self.overwrite,
            wait: self.wait,
        })
    }
}

impl UndeleteArgs {
    fn command(self, now: UnixMs) -> Result<Undelete, Failure> {
        let what = match (self.key, self.prefix, self.since) {
            (Some(key), ..) => What::Key(key),
            (None, Some(prefix), _) => What::Prefix(prefix),
            (None, None, Some(since)) => What::Since(moment(&since, now).map_err(Failure::usage)?.0),
            (None, None, None) => return Err(Failure::usage("name a key, --prefix or --since")),
        };
        Ok(Undelete { policy: self.policy, what, newest_only: self.newest_only })
    }
}

fn place(to: &str, working_folder: &Path) -> Result<To, Failure> {
    match to.split_once("://") {
        Some(("local", folder)) if folder.starts_with('/') => Ok(To::Folder(folder.to_owned())),
        Some(("local", bucket)) if !bucket.is_empty() && !bucket.contains('/') => Ok(To::Bucket(bucket.to_owned())),
        Some(_) => Err(Failure::usage(format!("`{to}` is no place to restore to: name a folder, or local://BUCKET"))),
        None => match working_folder.join(to).into_os_string().into_string() {
            Ok(folder) => Ok(To::Folder(folder)),
            Err(folder) => Err(Failure::usage(format!("the folder {} has no name in UTF-8", folder.display()))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn command(line: &str) -> Command {
        let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
        match cli.verb.task(UnixMs(10_000_000), Path::new("/home/ada")) {
            Ok(Task::Command(command)) => command,
            Ok(_) => panic!("{line} is no command to a data folder"),
            Err(failure) => panic!("{line}: {}", failure.chain()),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_says_what_which_and_where() {
        let restore = |line: &str| match command(line) {
            Command::Restore(restore) => restore,
            other => panic!("{other:?}"),
        };
        let newest = restore("afterimage restore a/b.txt");
        assert_eq!((newest.what, newest.which, newest.to), (What::Key("a/b.txt".into()), Which::Newest, To::Source));
        let at = restore("afterimage restore --prefix a/ --at 1970-01-01T00:00:05Z --to out --json");
        assert_eq!((at.what, at.which), (What::Prefix("a/".into()), Which::At(5_000)));
        assert_eq!(at.to, To::Folder("/home/ada/out".into()));
        let bucket = restore("afterimage restore --everything --to local://elsewhere --dry-run");
        assert_eq!((bucket.what, bucket.to), (What::Everything, To::Bucket("elsewhere".into())));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "afterimage restore",
            "afterimage restore k --everything",
            "afterimage restore k --at now --copy c",
            "afterimage restore --prefix p --copy c",
            "afterimage undelete",
            "afterimage undelete k --since now",
            "afterimage dlq drop",
            "afterimage dlq redrive 3 --all",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
        for line in
            ["afterimage restore k --at soon", "afterimage restore k --to s3://b", "afterimage undelete --since x"]
        {
            let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
            let refused = cli.verb.task(UnixMs(0), Path::new("/"));
            assert!(matches!(refused, Err(Failure::Usage(_))), "{line}");
        }
    }
}
