//! A webhook by HTTP: messages posted to one address, each signed with HMAC-SHA256 as the Standard Webhooks specification has
//! it, so that whoever takes them verifies them with a library of theirs.
//!
//! It is here since this crate holds the HTTP client and its certificates; it knows nothing of AWS. Three headers tell about a
//! message: `webhook-id`, the same when it comes again; `webhook-timestamp`, Unix seconds; and `webhook-signature`, `v1,` and
//! the base64 of the HMAC over id, timestamp and body, joined by dots. The secret, and what stands in an address behind its
//! host, appear in no log and no error. Redirects are not followed: what was signed is for one address.

use crate::limits::{WEBHOOK_SECRET_BYTES_MIN, WEBHOOK_WAIT};
use async_trait::async_trait;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::error::{ErrorKind, PortError, PortResult};
use engine::ports::clock::Clock;
use engine::ports::webhook::{Message, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;

/// What a secret may begin with; then it is base64.
const SECRET_PREFIX: &str = "whsec_";

/// What signs messages.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl WebhookSecret {
    /// Reads a secret as its file has it: `whsec_` and base64, or any other text, which is the secret itself; space around it
    /// does not count. An error in words, which do not tell it.
    pub fn read(text: &str) -> Result<WebhookSecret, String> {
        let text = text.trim();
        let secret = match text.strip_prefix(SECRET_PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| format!("after {SECRET_PREFIX} it is no base64"))?,
            None => text.as_bytes().to_vec(),
        };
        match secret.len() < WEBHOOK_SECRET_BYTES_MIN {
            true => {
                Err(format!("it has fewer than {WEBHOOK_SECRET_BYTES_MIN} bytes: `openssl rand -hex 32` makes one"))
            }
            false => Ok(WebhookSecret(secret)),
        }
    }

    /// The signature of a message that is sent at that time (Unix seconds).
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// One address.
pub struct HttpWebhook {
    url: String,
    /// The address without what stands behind its host.
    shown: String,
    secret: WebhookSecret,
    connector: Connector,
    clock: Arc<dyn Clock>,
}

/// What the other side answered.
#[derive(Debug, thiserror::Error)]
#[error("it answered {0}")]
struct Answered(u16);

impl HttpWebhook {
    /// An address (`https://…`, `http://127.0.0.1…`) and how it is shown to people. Nothing is asked yet.
    pub fn new(url: &str, shown: &str, secret: WebhookSecret, clock: Arc<dyn Clock>) -> HttpWebhook {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_proxy_config(Some(proxy_for(url)));
        HttpWebhook { url: url.to_owned(), shown: shown.to_owned(), secret, connector: connector.build(), clock }
    }

    fn request(&self, message: &Message) -> Result<HttpRequest, ErrorKind> {
        let wrong = |_| ErrorKind::NotSetUp("its address cannot be used".to_owned());
        let timestamp = self.clock.now().0.div_euclid(1_000);
        let signature = self.secret.sign(&message.id, timestamp, &message.body);
        let mut request = HttpRequest::new(SdkBody::from(message.body.clone()));
        request.set_method("POST").map_err(wrong)?;
        request.set_uri(self.url.as_str()).map_err(wrong)?;
        let headers = request.headers_mut();
        headers.insert("content-type", message.content_type);
        headers.insert("content-length", message.body.len().to_string());
        headers.insert("user-agent", "afterimage");
        headers.insert("webhook-id", message.id.clone());
        headers.insert("webhook-timestamp", timestamp.to_string());
        headers.insert("webhook-signature", signature);
        Ok(request)
    }
}

#[async_trait]
impl Webhook for HttpWebhook {
    async fn post(&self, message: &Message) -> PortResult<()> {
        let failed = |kind| PortError::new("post to webhook", &self.shown, kind);
        let request = self.request(message).map_err(failed)?;
        let answer = tokio::select! {
            answer = self.connector.call(request) => answer,
            () = self.clock.sleep(WEBHOOK_WAIT) => {
                return Err(failed(ErrorKind::Unavailable).because(Late));
            }
        };
        // The connector's error may name the address: only its kind is told.
        let answer = answer.map_err(|error| {
            let why = if error.is_timeout() { "it took too long" } else { "it cannot be reached" };
            failed(ErrorKind::Unavailable).because(Unreached(why))
        })?;
        match by_status(answer.status().as_u16()) {
            None => Ok(()),
            Some(kind) => Err(failed(kind).because(Answered(answer.status().as_u16()))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it took longer than {WEBHOOK_WAIT}")]
struct Late;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreached(&'static str);

/// The environment's proxy, but none for this machine, which alone is told in the clear: a proxy would read along.
fn proxy_for(url: &str) -> ProxyConfig {
    if url.starts_with("https://") { ProxyConfig::from_env() } else { ProxyConfig::disabled() }
}

/// What a status means; `None`: it was taken.
fn by_status(status: u16) -> Option<ErrorKind> {
    Some(match status {
        200..=299 => return None,
        300..=399 => ErrorKind::NotSetUp("it redirects elsewhere: name that address".to_owned()),
        401 | 403 => ErrorKind::AccessDenied("the webhook refuses the signature".to_owned()),
        404 | 405 | 410 => ErrorKind::NotSetUp("nothing takes messages at this address".to_owned()),
        408 | 425 => ErrorKind::Unavailable,
        429 => ErrorKind::Throttled,
        400..=499 => ErrorKind::Invalid("the webhook refuses the message".to_owned()),
        _ => ErrorKind::Unavailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification.
    #[test]
    fn messages_are_signed_as_the_specification_says() {
        let secret = WebhookSecret::read(" whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "WebhookSecret(…)");
        for (text, why) in [("short", "fewer than 16 bytes"), ("whsec_!", "no base64"), ("", "fewer than")] {
            assert!(WebhookSecret::read(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn what_is_told_in_the_clear_goes_through_no_proxy() {
        assert!(proxy_for("http://127.0.0.1:8080/hook").is_disabled());
        assert!(proxy_for("https://hooks.example.org/hook").is_from_env());
    }

    #[test]
    fn what_is_answered_says_whether_a_person_must_do_something() {
        assert_eq!((by_status(200), by_status(204)), (None, None));
        assert_eq!(by_status(500), Some(ErrorKind::Unavailable));
        assert_eq!(by_status(429), Some(ErrorKind::Throttled));
        assert!(matches!(by_status(301), Some(ErrorKind::NotSetUp(_))));
        assert!(matches!(by_status(401), Some(ErrorKind::AccessDenied(_))));
        assert!(matches!(by_status(413), Some(ErrorKind::Invalid(_))));
    }
}
