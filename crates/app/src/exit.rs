//! How a command ends: 0 all done, 1 something failed, 2 wrong usage, 3 what it needs lies in an archive tier. Error chains are printed here and nowhere else.
//!
//! What cannot be told changes nothing of what is done: standard error may be closed, or on a disk that is full.

use crate::output::{Style, json_line};
use engine::error::{ErrorKind, PortError};
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// What to do about a bucket, a table or a folder that is not there.
const MISSING_REMEDY: &str = "make it, or correct its name, region or account in the configuration";

/// The exit code of a command that did what it could without what lies in archive tiers.
pub(crate) const AWAITS: u8 = 3;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked for in a way that can never work: exit code 2.
    Usage(anyhow::Error),
    /// It did not work: exit code 1.
    Failed(anyhow::Error),
    /// What it needs lies in an archive tier, and must be, or is being, retrieved: exit code 3.
    Awaits(anyhow::Error),
    /// It was told already; only the exit code is left.
    Told(u8),
}

impl Failure {
    /// Wrong usage, in a sentence.
    pub(crate) fn usage(what: impl fmt::Display) -> Failure {
        Failure::Usage(anyhow::anyhow!("{what}"))
    }

    /// A failure, in a sentence.
    pub(crate) fn failed(what: impl fmt::Display) -> Failure {
        Failure::Failed(anyhow::anyhow!("{what}"))
    }

    /// What lies in an archive tier and what to do, in a sentence.
    pub(crate) fn awaits(what: impl fmt::Display) -> Failure {
        Failure::Awaits(anyhow::anyhow!("{what}"))
    }

    /// The whole chain in one line, each cause once.
    pub(crate) fn chain(&self) -> String {
        let (Failure::Usage(error) | Failure::Failed(error) | Failure::Awaits(error)) = self else {
            return String::new();
        };
        let mut parts: Vec<String> = Vec::new();
        for cause in error.chain().map(ToString::to_string) {
            // A transparent error says what its source says: once is enough.
            if parts.last() != Some(&cause) {
                parts.push(cause);
            }
        }
        if self.port() == Some(&ErrorKind::Missing) {
            parts.push(MISSING_REMEDY.to_owned());
        }
        parts.join(": ")
    }

    /// Of which kind the port's error was that it came from, if it did.
    pub(crate) fn port(&self) -> Option<&ErrorKind> {
        let (Failure::Usage(error) | Failure::Failed(error) | Failure::Awaits(error)) = self else { return None };
        error.chain().find_map(|cause| cause.downcast_ref::<PortError>()).map(|error| &error.kind)
    }

    /// The same failure, saying first what it kept from being done.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Failure {
        match self {
            Failure::Usage(error) => Failure::Usage(error.context(what.to_string())),
            Failure::Failed(error) => Failure::Failed(error.context(what.to_string())),
            Failure::Awaits(error) => Failure::Awaits(error.context(what.to_string())),
            Failure::Told(code) => Failure::Told(code),
        }
    }

    /// The exit code as a number.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Awaits(_) => AWAITS,
            Failure::Failed(_) => 1,
            Failure::Told(code) => *code,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Prints what went wrong, if anything, and gives the process its code.
pub(crate) fn finish(result: Result<bool, Failure>, style: Style) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure::Told(code)) => ExitCode::from(code),
        Err(failure) => {
            let why = failure.chain();
            if style == Style::Json {
                // Where nobody reads it, the exit code is left.
                let _ = json_line(&mut io::stdout(), &serde_json::json!({ "error": why }));
            }
            tell(format_args!("afterimage: {why}"));
            ExitCode::from(failure.code())
        }
    }
}

/// A line on standard error. Where nobody can read it, it is lost, and nothing else: the library's own macro would panic.
pub(crate) fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
