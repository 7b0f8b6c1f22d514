//! Waits for something to become so.

use std::time::{Duration, Instant};

/// Looks until `look` finds something. Panics with `what` if that takes for ever.
pub async fn until<R, F: Future<Output = Option<R>>>(what: &str, mut look: impl FnMut() -> F) -> R {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < super::http::FOREVER, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
