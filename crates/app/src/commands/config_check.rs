//! `config check`: says whether the configuration is sound, warns of what is probably not meant, and prints what is in
//! force, defaults included.

use crate::output::Style;
use engine::config::Config;

/// Prints it. The configuration was read already: what is wrong in it was refused there.
pub(crate) fn config_check(config: &Config, style: Style) -> bool {
    let warnings = config.warnings();
    match style {
        Style::Json => {
            println!("{}", serde_json::json!({ "warnings": warnings, "effective": config.to_toml() }));
        }
        Style::Text | Style::Csv | Style::Html => {
            for warning in &warnings {
                eprintln!("warning: {warning}");
            }
            print!("{}", config.to_toml());
            eprintln!("the configuration is sound");
        }
    }
    true
}
