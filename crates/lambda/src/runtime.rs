//! From the process to one invocation: logs, the runtime, what is kept warm, the time limit.
//!
//! One thread: a function has a share of a processor, and waits for the network. Everything is opened while the function
//! starts; what fails then (a service that is down, a wrong setting) is tried again by the next invocation, which says why it
//! failed.

use crate::cleaner::clean_and_compare;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::limits::START_WAIT;
use crate::records::archive_records;
use crate::replicator::replicate;
use crate::time_limit::TimeLimit;
use crate::warm::Warm;
use engine::clock::SystemClock;
use engine::ports::clock::Clock;
use lambda_runtime::{LambdaEvent, service_fn};
use lifecycle::time::UnixMs;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Which function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Takes object events.
    Replicator,
    /// Takes a schedule.
    Cleaner,
    /// Takes the stream of a table.
    Records,
}

/// Runs the function until its environment ends.
pub fn start(function: Function) -> ExitCode {
    let environment = Environment::read();
    let filter = EnvFilter::try_new(&environment.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false).with_env_filter(filter);
    // A line that cannot be written is lost. The library would complain of it on standard error, and panic there.
    lines.log_internal_errors(false).init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(serve(function, Arc::new(environment)))
}

async fn serve(function: Function, environment: Arc<Environment>) -> ExitCode {
    let warm: Arc<OnceCell<Warm>> = Arc::default();
    // Lambda ends a start after ten seconds, and begins it once more.
    let opened = tokio::select! {
        opened = warm.get_or_try_init(|| Warm::open(&environment, function)) => opened.map(drop),
        () = SystemClock.sleep(START_WAIT) => Err(Failure::new("time-limit", "what it needs did not answer while it started")),
    };
    if let Err(failure) = opened {
        tracing::error!("{failure}; the next invocation tries again");
    }
    let handler = service_fn(|event: LambdaEvent<Value>| {
        let (warm, environment) = (warm.clone(), environment.clone());
        async move {
            let result = invoke(function, &warm, &environment, event).await;
            if let Err(failure) = &result {
                tracing::error!("{failure}");
            }
            result
        }
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the runtime ended: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn invoke(
    function: Function,
    warm: &OnceCell<Warm>,
    environment: &Environment,
    event: LambdaEvent<Value>,
) -> Result<Value, Failure> {
    let deadline = UnixMs(i64::try_from(event.context.deadline).unwrap_or(i64::MAX));
    let limit = TimeLimit::new(SystemClock.now(), deadline);
    let opening = warm.get_or_try_init(|| Warm::open(environment, function));
    let Some(warm) = limit.keep(&SystemClock, &CancellationToken::new(), opening).await else {
        return Err(Failure::new("time-limit", "what the function needs did not answer in its time"));
    };
    let warm = warm?;
    match function {
        Function::Replicator => replicate(warm, &event.payload, limit).await,
        Function::Cleaner => clean_and_compare(warm, &event.payload, limit).await,
        Function::Records => archive_records(warm, &event.payload, limit).await,
    }
}
