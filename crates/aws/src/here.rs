//! A service in this process: what clients of it ask is answered by a call, without a socket, so that nobody else can get in
//! between, and nothing need listen.

use async_trait::async_trait;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Answers what clients of DynamoDB and of its streams ask.
#[async_trait]
pub trait AnswersHere: Send + Sync {
    /// `target`: the operation, as the header `x-amz-target` names it. Gives the status of HTTP, and JSON.
    async fn answer(&self, target: String, body: Bytes) -> (u16, Bytes);
}

/// Carries the requests over.
#[derive(Clone)]
struct Here(Arc<dyn AnswersHere>);

/// An HTTP client that asks this one.
pub(crate) fn client(answers: Arc<dyn AnswersHere>) -> SharedHttpClient {
    SharedHttpClient::new(Here(answers))
}

impl fmt::Debug for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Here")
    }
}

impl HttpClient for Here {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Here {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answers = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            let wrong = |why: &str| ConnectorError::user(why.into());
            let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
            let body = request.body().bytes().ok_or_else(|| wrong("a body in pieces"))?;
            let (status, body) = answers.answer(target, Bytes::copy_from_slice(body)).await;
            let status = StatusCode::try_from(status).map_err(|_| wrong("no status of HTTP"))?;
            Ok(HttpResponse::new(status, SdkBody::from(body)))
        })
    }
}
