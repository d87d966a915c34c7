//! The real process, as a server for a benchmark.

use crate::process::peak_mib;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The process; killed when dropped.
pub(crate) struct Serving {
    child: Child,
    program: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) address: SocketAddr,
    _out: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts it on a data folder in `folder`, with these words besides.
    pub(crate) fn start(program: &Path, folder: &Path, words: &[&str]) -> Result<Serving> {
        let program = program
            .canonicalize()
            .with_context(|| format!("{} is not there: `cargo build --release` makes it", program.display()))?;
        let data = folder.join("data");
        let log = File::create(folder.join("serve.log"))?;
        let mut child = Command::new(&program)
            .arg("--data-dir")
            .arg(&data)
            .args(words)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let mut printed = String::new();
        while !printed.contains("ready (") {
            ensure!(out.read_line(&mut printed)? > 0, "serve ended: {printed}");
        }
        let address = printed.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.context("`serve` prints its address")?.parse()?;
        Ok(Serving { child, program, data, address, _out: out })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a command; its answer.
    pub(crate) fn command(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program).arg("--data-dir").arg(&self.data).args(words).output()?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Waits until every event is handled.
    pub(crate) fn drained(&self) -> Result<()> {
        loop {
            let status: Value = serde_json::from_str(&self.command(&["status", "--json"])?)?;
            if status["queue"]["waiting"] == 0 {
                return Ok(());
            }
        }
    }

    /// The peak since the last call.
    pub(crate) fn peak_mib(&self) -> Result<u64> {
        let peak = peak_mib(self.id())?;
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5")?;
        Ok(peak)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
