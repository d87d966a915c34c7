//! The one binary `afterimage`: commands, daemon, wiring.
//!
//! `cli.rs` is what a person types, `command.rs` what can be asked of a data folder, `execute.rs` the one function that
//! does it: in the daemon (`daemon.rs`), reached through `control/`, or in this very process while no daemon runs.

// They panic where nothing can be written: on a full disk, or when nobody reads any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod answer;
mod archiving;
mod cli;
mod command;
mod commands;
mod control;
mod daemon;
mod execute;
mod exit;
mod feed;
mod feeding;
mod folder;
mod gone_tables;
mod home;
mod hooks;
mod instance;
mod intake;
mod limits;
mod output;
mod packing;
mod place;
mod query;
mod reach;
mod remote;
mod schedule;
mod signals;
mod snapshot;
#[cfg(feature = "dynamodb")]
mod tables;
#[cfg(not(feature = "dynamodb"))]
#[path = "no_tables.rs"]
mod tables;
mod when;
mod who;
mod wiring;

use clap::Parser;
use cli::{Cli, Place, Task};
use command::Command;
use engine::ports::clock::Clock;
use engine::wrap::owned::Claim;
use exit::Failure;
use feed::feed;
use folder::{Folder, IfMissing};
use local::clock::SystemClock;
use output::Style;
use place::Chosen;
use remote::MissingTable;
use signals::Signals;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let style = if cli.place.json { Style::Json } else { Style::Text };
    exit::finish(run(cli), style)
}

fn run(cli: Cli) -> Result<bool, Failure> {
    let usual = if cli.place.json { Style::Json } else { Style::Text };
    let style = cli.verb.style().unwrap_or(usual);
    let working_folder = std::env::current_dir()?;
    let task = cli.verb.task(SystemClock.now(), &working_folder)?;
    match task {
        Task::Init { file } => commands::init::init(&file, style),
        Task::ConfigCheck => commands::config_check::config_check(&place::choose(&cli.place)?.config, style),
        Task::Serve { listen, claim, missing_table } => {
            log_to_stderr("info");
            runtime()?.block_on(daemon::serve(
                place::choose(&cli.place)?,
                listen,
                claim,
                missing_table,
                &cli.place,
                style,
            ))
        }
        Task::Rebuild { policy } => {
            log_to_stderr("warn");
            runtime()?.block_on(rebuild(place::choose(&cli.place)?, policy, style))
        }
        Task::Enable(asked) => {
            log_to_stderr("warn");
            let chosen = place::choose(&cli.place)?;
            runtime()?.block_on(commands::archive_enable::enable(&chosen.config, asked, &SystemClock, style))
        }
        Task::Tiers(asked) => {
            log_to_stderr("warn");
            let chosen = place::choose(&cli.place)?;
            runtime()?.block_on(commands::archive_tiers::tiers(&chosen.config, asked, style))
        }
        Task::Command(command) => {
            log_to_stderr("warn");
            runtime_for(&command)?.block_on(ask(&cli.place, command, style))
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// What brings objects back checks every byte, and takes all processors for it. Everything else mostly waits for stores: on
/// one thread, no answer is handed from one to another. Only copies between two services pass through that thread, too.
fn runtime_for(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    match command {
        Command::Restore(_) | Command::Undelete(_) => runtime(),
        // Packs are made, and opened, by processors.
        Command::Archive(_) => runtime(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    }
}

fn log_to_stderr(level: &str) {
    // The library under the endpoint logs every refusal of a client (a missing key, a wrong signature) as an error; what
    // a person must act on, the endpoint logs itself.
    let quiet = format!("{level},s3s=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(ansi)
        // A line that cannot be written is lost. The library would complain of it on standard error, and panic there.
        .log_internal_errors(false)
        .init();
}

/// Gives a command to the folder's daemon, or executes it here while none runs.
async fn ask(place: &Place, command: Command, style: Style) -> Result<bool, Failure> {
    // A daemon has read its configuration: the file is read only where it alone says which folder is meant.
    let running = match place::folder_by_flags(place) {
        Some(folder) => control::client::connect(&folder).await?,
        None => None,
    };
    if let Some(daemon) = running {
        return ask_daemon(daemon, command, style).await;
    }
    let chosen = place::choose(place)?;
    match control::client::connect(&chosen.config.data_dir).await? {
        Some(daemon) => ask_daemon(daemon, command, style).await,
        None => {
            let folder = Folder::open(&chosen.config.data_dir, IfMissing::Refuse)?;
            run_here(folder, chosen, command, style).await
        }
    }
}

async fn ask_daemon(daemon: UnixStream, command: Command, style: Style) -> Result<bool, Failure> {
    let (feed, frames) = feed();
    let cancel = cancel_on_signal()?;
    let work = async {
        control::client::run(daemon, command, &feed, cancel).await;
        drop(feed);
    };
    let (code, ()) = tokio::join!(output::print(frames, style), work);
    exit_code(code)
}

/// Executes a command in this process, which holds the folder.
async fn run_here(folder: Folder, chosen: Chosen, command: Command, style: Style) -> Result<bool, Failure> {
    let (feed, frames) = feed();
    let cancel = cancel_on_signal()?;
    let instance = wiring::open(folder, chosen.config, Claim::Own, MissingTable::Refuse, Arc::new(SystemClock)).await?;
    let work = async {
        execute::execute(&instance, command, &who::this_user(), &feed, &cancel).await;
        drop(feed);
    };
    let (code, ()) = tokio::join!(output::print(frames, style), work);
    instance.close().await;
    exit_code(code)
}

/// Moves catalogs aside and makes them again from their destinations.
async fn rebuild(chosen: Chosen, policy: Option<String>, style: Style) -> Result<bool, Failure> {
    if control::client::connect(&chosen.config.data_dir).await?.is_some() {
        return Err(Failure::failed("`afterimage serve` is running on this folder: stop it first, then rebuild"));
    }
    let folder = Folder::open(&chosen.config.data_dir, IfMissing::Refuse)?;
    commands::reconcile::set_catalogs_aside(folder.path(), &chosen.config, policy.as_deref(), SystemClock.now())?;
    run_here(folder, chosen, Command::Reconcile { policy }, style).await
}

fn exit_code(printed: std::io::Result<u8>) -> Result<bool, Failure> {
    match printed {
        Ok(0) => Ok(true),
        Ok(code) => Err(Failure::Told(code)),
        // Whoever read our output has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(Failure::Failed(anyhow::Error::new(error).context("cannot write the answer"))),
    }
}

/// The first Ctrl-C (or SIGTERM) stops the command cleanly; the second ends this process at once.
fn cancel_on_signal() -> Result<CancellationToken, Failure> {
    let cancel = CancellationToken::new();
    let (token, mut signals) = (cancel.clone(), Signals::new()?);
    tokio::spawn(async move {
        signals.next().await;
        exit::tell("stopping; once more to leave at once");
        token.cancel();
        signals.next().await;
        std::process::exit(1);
    });
    Ok(cancel)
}
