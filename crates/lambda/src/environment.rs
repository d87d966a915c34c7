//! What the function's environment says: the only place of this crate that reads it.

/// The variable with the configuration, as TOML.
pub(crate) const CONFIG: &str = "AFTERIMAGE_CONFIG";
/// The variable with the name of the SSM parameter that has it instead.
pub(crate) const CONFIG_PARAMETER: &str = "AFTERIMAGE_CONFIG_PARAMETER";

/// The environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The configuration.
    pub(crate) config: Option<String>,
    /// Where else it is.
    pub(crate) parameter: Option<String>,
    /// The function's name.
    pub(crate) function: String,
    /// What is logged: `info`, or a filter such as `info,engine=debug`.
    pub(crate) log: String,
    /// The namespace of metrics in CloudWatch.
    pub(crate) namespace: String,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Environment {
        Environment {
            config: variable(CONFIG),
            parameter: variable(CONFIG_PARAMETER),
            function: variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default(),
            log: variable("AFTERIMAGE_LOG").unwrap_or_else(|| "info".to_owned()),
            namespace: variable("AFTERIMAGE_METRICS_NAMESPACE").unwrap_or_else(|| "Afterimage".to_owned()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
