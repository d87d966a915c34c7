//! `init`: writes a commented configuration, and never over one that is there.

use crate::exit::Failure;
use crate::output::Style;
use anyhow::Context;
use engine::config::Config;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes it.
pub(crate) fn init(file: &Path, style: Style) -> Result<bool, Failure> {
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(mut fresh) => {
            let written = fresh.write_all(Config::template().as_bytes()).and_then(|()| fresh.sync_all());
            written.with_context(|| format!("cannot write {}", file.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::failed(format!(
                "{} is there already and was left as it is: name another file, or move it away",
                file.display()
            )));
        }
        Err(error) => {
            return Err(Failure::Failed(anyhow::Error::new(error).context(format!("cannot write {}", file.display()))));
        }
    }
    let mut out = io::stdout();
    match style {
        Style::Json => writeln!(out, "{}", serde_json::json!({ "written": file }))?,
        Style::Text | Style::Csv | Style::Html => {
            writeln!(out, "wrote {0}: look through it, then `afterimage serve --config {0}`", file.display())?
        }
    }
    Ok(true)
}
