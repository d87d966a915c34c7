//! The function that a schedule invokes: it cleans every policy, and compares those that its payload names.

use std::process::ExitCode;

fn main() -> ExitCode {
    lambda::start(lambda::Function::Cleaner)
}
