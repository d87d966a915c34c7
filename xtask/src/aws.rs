//! The AWS adapters and the Lambda functions against an emulator of AWS, installed with exact versions into a virtual environment under the target
//! folder. Each test starts one of its own; without the emulator they are ignored.

use crate::python::environment;
use crate::run::{Outcome, Sh};
use anyhow::{Context, Result};

const REQUIREMENTS: &str = "tests/aws/requirements.txt";
/// Modules of the binary's tests that need the emulator.
const E2E: [&str; 6] = ["services", "storms", "ownership", "retrieval", "record_letters", "feeds"];

/// Sets the environment up if its requirements have changed, and runs the tests that need it. Built as the step `tests`
/// builds them: with the features of one package alone the SDK would be compiled once more.
pub(crate) fn test() -> Result<Outcome> {
    let python = environment("venv-aws", REQUIREMENTS)?;
    let emulator = python.parent().context("the environment's folder")?.join("ministack");
    if !Sh::new("cargo nextest --version").works() {
        let adapters =
            Sh::new("cargo test -p afterimage-aws --tests -- --ignored").env("AFTERIMAGE_EMULATOR", &emulator);
        adapters.run()?;
        let functions = Sh::new("cargo test -p afterimage-lambda --tests -- --ignored");
        functions.env("AFTERIMAGE_EMULATOR", &emulator).run()?;
        let which: String = E2E.iter().map(|module| format!(" {module}::")).collect();
        let binary = Sh::new(&format!("cargo test -p afterimage --test e2e -- --ignored{which}"));
        return binary.env("AFTERIMAGE_EMULATOR", emulator).run();
    }
    let of_binary = E2E.join("|");
    let which = format!("package(afterimage-aws)|package(afterimage-lambda)|test(/^({of_binary})::/)");
    let tests = Sh::new(&format!("cargo nextest run --workspace --run-ignored only -E {which}"));
    tests.env("AFTERIMAGE_EMULATOR", emulator).run()
}
