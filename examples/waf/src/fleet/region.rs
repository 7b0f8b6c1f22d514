//! The copies that a region's servers keep: `waf region --nats nats://LEAF --hub DOMAIN`.

use std::time::{Duration, Instant};

use hotslot::BoxError;

use super::store::{Endpoint, Store, StoreError};

/// How long it waits for the servers, and for the hub behind them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the copies of documents and artifacts from which the nodes of a region are served.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    endpoint: Endpoint,

    /// The JetStream domain of the servers that the orchestrators use
    #[arg(long, value_name = "DOMAIN")]
    hub: String,

    /// On how many servers of the region the copies are kept
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    replicas: usize,
}

/// Makes them once the servers answer.
pub async fn run(options: Options) -> Result<(), BoxError> {
    let store = Store::connect(&options.endpoint, "region").await?;
    let began = Instant::now();
    loop {
        match store.mirror(&options.hub, options.replicas).await {
            Ok(()) => break,
            Err(error @ StoreError::Refused(_)) => return Err(error.into()),
            Err(error) if began.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    println!("waf: this region keeps copies of what is in {}", options.hub);
    Ok(())
}
