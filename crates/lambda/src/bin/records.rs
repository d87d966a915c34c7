//! The function that the stream of a table reaches.

use std::process::ExitCode;

fn main() -> ExitCode {
    lambda::start(lambda::Function::Records)
}
