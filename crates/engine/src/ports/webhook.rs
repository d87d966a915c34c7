//! A webhook: an address that is told by POST, each message signed with a secret that both sides know.

use crate::error::PortResult;
use async_trait::async_trait;
use bytes::Bytes;

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same whenever this message is sent, so that the other side can drop what comes twice.
    pub id: String,
    /// What the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

/// Posts messages to one address.
#[async_trait]
pub trait Webhook: Send + Sync {
    /// Posts a message; done once the other side has answered 2xx. `Invalid`: it refuses this message for good; anything else
    /// is worth trying again.
    async fn post(&self, message: &Message) -> PortResult<()>;
}
