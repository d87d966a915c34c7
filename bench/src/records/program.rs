//! The real program, given commands about an archive in the benchmark's S3 server, without a daemon.

use super::made::{SERVICE, TABLE};
use crate::aws::servers::{Beside, Servers};
use crate::process::{Ran, run_to_end};
use crate::serving::Serving;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program on these servers.
pub(crate) struct Program<'a> {
    program: PathBuf,
    servers: &'a Servers,
    folder: PathBuf,
}

/// One archive of it, with a data folder of its own.
pub(crate) struct WithArchive<'a> {
    program: &'a Program<'a>,
    folder: PathBuf,
}

impl Program<'_> {
    pub(crate) fn new<'a>(beside: &Beside, servers: &'a Servers, folder: &Path) -> Result<Program<'a>> {
        let program = beside.program.canonicalize();
        let program = program.with_context(|| format!("{}: build it first", beside.program.display()))?;
        Ok(Program { program, servers, folder: folder.to_owned() })
    }

    /// An archive in that bucket.
    pub(crate) fn with_archive(&self, bucket: &str) -> Result<WithArchive<'_>> {
        let folder = self.folder.join(format!("program-{bucket}"));
        fs::create_dir(&folder)?;
        let config = folder.join("afterimage.toml");
        // The data folder is made by a start that follows nothing.
        fs::write(&config, "default_policy = \"off\"\n")?;
        drop(Serving::start(&self.program, &folder, &["--config", &config.to_string_lossy()])?);
        let service =
            |name, at| format!("[[service]]\nname = \"{name}\"\nendpoint = \"http://{at}\"\npath_style = true\n");
        let (s3, dynamodb) =
            (service("s3", self.servers.s3_address()), service("db", self.servers.dynamodb_address()?));
        let archive = format!(
            "[[archive]]\ntable = \"dynamodb://db@{TABLE}\"\nservice = \"{SERVICE}\"\ndestination = \"s3://s3@{bucket}\"\n"
        );
        fs::write(&config, format!("default_policy = \"off\"\ndynamodb_endpoint = \"off\"\n{s3}{dynamodb}{archive}"))?;
        Ok(WithArchive { program: self, folder })
    }
}

impl WithArchive<'_> {
    /// Gives a command; what it took, and what it printed.
    pub(crate) fn ran(&self, words: &[&str]) -> Result<(Ran, String)> {
        let mut command = Command::new(&self.program.program);
        command
            .arg("--config")
            .arg(self.folder.join("afterimage.toml"))
            .arg("--data-dir")
            .arg(self.folder.join("data"));
        command.args(words).current_dir(&self.folder);
        run_to_end(self.program.servers.known_to(command))
    }
}
