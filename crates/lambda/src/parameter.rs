//! The configuration from a parameter of AWS Systems Manager: the environment of a function holds no more than 4 KB.

use crate::failure::Failure;
use aws::Service;
use aws_sdk_ssm::error::DisplayErrorContext;

/// Reads a parameter, decrypted if it is encrypted. The right: `ssm:GetParameter` (and `kms:Decrypt`).
pub(crate) async fn read(name: &str) -> Result<String, Failure> {
    let client = aws_sdk_ssm::Client::new(&Service::default().load().await);
    let answer = client.get_parameter().name(name).with_decryption(true).send().await;
    let failed = |why: String| Failure::new("configuration", format!("cannot read the parameter {name}: {why}"));
    let answer = answer.map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
    let value = answer.parameter.and_then(|parameter| parameter.value);
    value.ok_or_else(|| failed("it has no value".to_owned()))
}
