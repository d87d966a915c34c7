//! `config check`: says whether the configuration is sound, warns of what is probably not meant, and prints what is in
//! force, defaults included.

use crate::exit::{Failure, tell};
use crate::output::Style;
use engine::config::Config;
use std::io::{self, Write};

/// Prints it. The configuration was read already: what is wrong in it was refused there.
pub(crate) fn config_check(config: &Config, style: Style) -> Result<bool, Failure> {
    let warnings = config.warnings();
    let mut out = io::stdout();
    match style {
        Style::Json => {
            writeln!(out, "{}", serde_json::json!({ "warnings": warnings, "effective": config.to_toml() }))?;
        }
        Style::Text | Style::Csv | Style::Html => {
            for warning in &warnings {
                tell(format_args!("warning: {warning}"));
            }
            write!(out, "{}", config.to_toml())?;
            out.flush()?;
            tell("the configuration is sound");
        }
    }
    Ok(true)
}
