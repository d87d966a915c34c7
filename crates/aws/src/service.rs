//! Which service is meant, and clients of it: endpoint, region, profile, role. One [`Service`] per account and region.
//!
//! Credentials come from where every AWS tool looks (environment, profile, container, instance); none stand in the
//! configuration. Retries are the SDK's: adaptive, so that a service that asks to slow down is asked less often.

use crate::limits::{CALL_ATTEMPTS, CONNECT_WAIT, READ_WAIT};
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider, SharedHttpClient};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder as HttpClient, ConnectorBuilder};

/// Which account and region of AWS, or which service that speaks its protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    /// The address of a service other than AWS's own: `http://127.0.0.1:4566`.
    pub endpoint: Option<String>,
    /// The region; without one, what the profile or the environment says.
    pub region: Option<String>,
    /// The profile of the shared AWS configuration.
    pub profile: Option<String>,
    /// The role to assume (its ARN), for another account.
    pub role: Option<String>,
    /// Buckets in the path rather than in the host's name, as most services other than AWS want it.
    pub path_style: bool,
}

impl Service {
    /// What all clients of this service share. Reads files and the environment; asks no service yet.
    pub async fn load(&self) -> SdkConfig {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_WAIT).read_timeout(READ_WAIT).build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .app_name(app_name())
            .http_client(http_client())
            .retry_config(RetryConfig::adaptive().with_max_attempts(CALL_ATTEMPTS))
            .timeout_config(timeouts);
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let config = loader.load().await;
        let Some(role) = &self.role else { return config };
        let provider = AssumeRoleProvider::builder(role).configure(&config).session_name("afterimage").build().await;
        config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
    }

    /// The same for the service that this HTTP client asks in this process, which looks at no signature.
    pub(crate) fn load_here(client: SharedHttpClient) -> SdkConfig {
        let nobody = Credentials::new("here", "here", None, None, "this process");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .app_name(app_name())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://localhost")
            .credentials_provider(SharedCredentialsProvider::new(nobody))
            .http_client(client)
            .retry_config(RetryConfig::standard().with_max_attempts(CALL_ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().read_timeout(READ_WAIT).build())
            .build()
    }

    /// A client of its S3. Services other than AWS may not know the newer checksums: they get those that a request needs.
    pub fn s3(&self, config: &SdkConfig) -> aws_sdk_s3::Client {
        let mut builder = aws_sdk_s3::config::Builder::from(config).force_path_style(self.path_style);
        if self.endpoint.is_some() {
            builder = builder
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        aws_sdk_s3::Client::from_conf(builder.build())
    }

    /// A client of its streams of tables.
    pub fn streams(&self, config: &SdkConfig) -> aws_sdk_dynamodbstreams::Client {
        aws_sdk_dynamodbstreams::Client::new(config)
    }

    /// A client of its DynamoDB.
    pub fn dynamodb(&self, config: &SdkConfig) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(config)
    }
}

fn app_name() -> AppName {
    AppName::new("afterimage").expect("letters only")
}

/// One for all clients of a service, as the SDK would make one for each: certificates are read once, and connections shared.
fn http_client() -> SharedHttpClient {
    HttpClient::new().build_with_connector_fn(|settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}
