//! The one binary `afterimage`: commands, daemon, wiring.
//!
//! `cli.rs` is what a person types, `command.rs` what can be asked of a data folder, `execute.rs` the one function that
//! does it: in the daemon (`daemon.rs`), reached through `control/`, or in this very process while no daemon runs.

mod answer;
mod cli;
mod command;
mod commands;
mod control;
mod daemon;
mod execute;
mod exit;
mod feed;
mod folder;
mod hooks;
mod instance;
mod limits;
mod output;
mod place;
mod schedule;
mod snapshot;
mod when;
mod who;
mod wiring;

use clap::Parser;
use cli::{Cli, Task};
use command::Command;
use engine::ports::clock::Clock;
use exit::Failure;
use feed::feed;
use folder::{Folder, IfMissing};
use local::clock::SystemClock;
use output::Style;
use place::Chosen;
use std::io::IsTerminal;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    exit::finish(run(cli))
}

fn run(cli: Cli) -> Result<bool, Failure> {
    let style = if cli.place.json { Style::Json } else { Style::Text };
    let working_folder = std::env::current_dir()?;
    let task = cli.verb.task(SystemClock.now(), &working_folder)?;
    if let Task::Init { file } = task {
        return commands::init::init(&file, style);
    }
    let chosen = place::choose(&cli.place)?;
    match task {
        Task::Init { .. } => Ok(true),
        Task::ConfigCheck => Ok(commands::config_check::config_check(&chosen.config, style)),
        Task::Serve { listen } => {
            log_to_stderr("info");
            runtime()?.block_on(daemon::serve(chosen, listen, &cli.place, style))
        }
        Task::Rebuild { policy } => {
            log_to_stderr("warn");
            runtime()?.block_on(rebuild(chosen, policy, style))
        }
        Task::Command(command) => {
            log_to_stderr("warn");
            runtime()?.block_on(ask(chosen, command, style))
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
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
        .init();
}

/// Gives a command to the folder's daemon, or executes it here while none runs.
async fn ask(chosen: Chosen, command: Command, style: Style) -> Result<bool, Failure> {
    let (feed, frames) = feed();
    let cancel = cancel_on_interrupt();
    let daemon = control::client::connect(&chosen.config.data_dir).await?;
    let instance = match daemon {
        Some(_) => None,
        None => {
            let folder = Folder::open(&chosen.config.data_dir, IfMissing::Refuse)?;
            Some(wiring::open(folder, chosen.config).await?)
        }
    };
    let work = async {
        match (daemon, &instance) {
            (Some(stream), _) => control::client::run(stream, command, &feed, cancel).await,
            (None, Some(instance)) => {
                execute::execute(instance, command, &who::this_user(), &feed, &cancel).await;
            }
            (None, None) => {}
        }
        drop(feed);
    };
    let (code, ()) = tokio::join!(output::print(frames, style), work);
    if let Some(instance) = instance {
        instance.close().await;
    }
    exit_code(code)
}

/// Moves catalogs aside and makes them again from their destinations.
async fn rebuild(chosen: Chosen, policy: Option<String>, style: Style) -> Result<bool, Failure> {
    if control::client::connect(&chosen.config.data_dir).await?.is_some() {
        return Err(Failure::failed("`afterimage serve` is running on this folder: stop it first, then rebuild"));
    }
    let (feed, frames) = feed();
    let cancel = cancel_on_interrupt();
    let folder = Folder::open(&chosen.config.data_dir, IfMissing::Refuse)?;
    commands::reconcile::set_catalogs_aside(folder.path(), &chosen.config, policy.as_deref(), SystemClock.now())?;
    let instance = wiring::open(folder, chosen.config).await?;
    let work = async {
        let command = Command::Reconcile { policy };
        execute::execute(&instance, command, &who::this_user(), &feed, &cancel).await;
        drop(feed);
    };
    let (code, ()) = tokio::join!(output::print(frames, style), work);
    instance.close().await;
    exit_code(code)
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

/// The first Ctrl-C stops the command cleanly; the second ends this process at once.
fn cancel_on_interrupt() -> CancellationToken {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            eprintln!("stopping; once more to leave at once");
            token.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(1);
        }
    });
    cancel
}
