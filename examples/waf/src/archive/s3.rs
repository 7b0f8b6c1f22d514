//! The archive in a bucket: object_store's S3 client, over the HTTP and TLS that the proxy has anyway.

use std::time::Duration;

use async_trait::async_trait;
use hotslot::BoxError;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{Result, RetryConfig};
use tokio::time::timeout;

use crate::config::S3;
use crate::upstream::{Connector, connector};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A reload waits for its bytes to be kept, so giving up comes soon.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

pub fn open(config: &S3) -> std::result::Result<AmazonS3, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build(connector(CONNECT_TIMEOUT, false)?);
    let mut builder = AmazonS3Builder::from_env()
        .with_http_connector(Hyper(client))
        .with_retry(RetryConfig { retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() })
        .with_bucket_name(&config.bucket)
        .with_allow_http(config.allow_http);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    Ok(builder.build()?)
}

#[derive(Clone, Debug)]
struct Hyper(Client<Connector, HttpRequestBody>);

impl HttpConnector for Hyper {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Hyper {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        match timeout(REQUEST_TIMEOUT, self.0.request(request)).await {
            Ok(Ok(answer)) => Ok(answer.map(|body| {
                HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)))
            })),
            Ok(Err(error)) if error.is_connect() => Err(HttpError::new(HttpErrorKind::Connect, error)),
            Ok(Err(error)) => Err(HttpError::new(HttpErrorKind::Request, error)),
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        }
    }
}
