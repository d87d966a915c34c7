//! Which configuration and which data folder a command means.
//!
//! A folder that was served with a configuration file remembers it (`config.path`), so that a later command, or a `serve`
//! without the flag, never works on it with the short retention that is for trying out.

use crate::cli::Place;
use crate::exit::Failure;
use anyhow::Context;
use engine::config::{Config, DATA_DIR, TablesConfig};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const REMEMBERED: &str = "config.path";

/// What a command works with.
pub(crate) struct Chosen {
    /// The configuration, with the folder that was asked for.
    pub(crate) config: Config,
    /// Its file; `None`: the one for trying out.
    pub(crate) file: Option<PathBuf>,
}

/// Finds it: the flag, else what the folder remembers, else the configuration for trying out.
pub(crate) fn choose(place: &Place) -> Result<Chosen, Failure> {
    let by_flags = folder_by_flags(place);
    let folder = by_flags.as_deref().unwrap_or(Path::new(DATA_DIR));
    let file = match &place.config {
        Some(file) => Some(file.clone()),
        None => remembered(folder)?,
    };
    let mut config = match &file {
        Some(file) => Config::load(file).map_err(|error| Failure::Usage(anyhow::Error::new(error)))?,
        None => Config::trial(folder.to_owned()),
    };
    if let Some(folder) = by_flags {
        config.data_dir = folder;
    }
    // What nobody asked for is not refused by a program that does not have it.
    if !cfg!(feature = "dynamodb") && config.tables == Some(TablesConfig::default()) {
        config.tables = None;
    }
    Ok(Chosen { config, file })
}

/// The data folder, where it is known without reading a configuration.
pub(crate) fn folder_by_flags(place: &Place) -> Option<PathBuf> {
    match (&place.data_dir, &place.config) {
        (Some(folder), _) => Some(folder.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(PathBuf::from(DATA_DIR)),
    }
}

fn remembered(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let note = folder.join(REMEMBERED);
    let file = match fs::read_to_string(&note) {
        Ok(text) => PathBuf::from(text.trim_end_matches('\n')),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(None),
        Err(error) => {
            return Err(Failure::Failed(anyhow::Error::new(error).context(format!("cannot read {}", note.display()))));
        }
    };
    if file.exists() {
        return Ok(Some(file));
    }
    Err(Failure::failed(format!(
        "{} was served with the configuration {}, which is not there any more: name it with --config (to go back to the \
         short retention for trying out, delete {})",
        folder.display(),
        file.display(),
        note.display()
    )))
}

/// Notes in the folder which configuration it is served with. The caller holds the folder's lock.
pub(crate) fn remember(folder: &Path, file: &Path) -> Result<(), Failure> {
    let note = folder.join(REMEMBERED);
    let write = || -> std::io::Result<()> {
        let file = file.canonicalize()?;
        let mut fresh = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(fresh, "{}", file.display())?;
        fresh.as_file().sync_all()?;
        fresh.persist(&note)?;
        File::open(folder)?.sync_all()
    };
    Ok(write().with_context(|| format!("cannot write {}", note.display()))?)
}
