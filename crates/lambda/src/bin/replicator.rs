//! The function that object events reach: directly, by EventBridge, by SNS, or in batches from SQS.

use std::process::ExitCode;

fn main() -> ExitCode {
    lambda::start(lambda::Function::Replicator)
}
