//! What goes on on a connection with HTTP/2, whose client may stop to read one answer, or all of them, and still be there.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hotslot::BoxError;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::body::Body;

/// The requests of a connection that are under way. One whose client does not read the answer is not.
#[derive(Default)]
pub struct Activity {
    begun: AtomicUsize,
    under_way: AtomicUsize,
    changed: Notify,
}

/// A request that is under way.
pub struct UnderWay(Arc<Activity>);

impl Activity {
    pub fn begin(this: &Arc<Activity>) -> UnderWay {
        this.begun.fetch_add(1, Ordering::AcqRel);
        this.under_way.fetch_add(1, Ordering::AcqRel);
        this.changed.notify_one();
        UnderWay(Arc::clone(this))
    }

    /// Returns once nothing has been under way for so long. Never does where no request is counted.
    pub async fn rests_for(&self, time: Duration) {
        loop {
            let rests = self.begun.load(Ordering::Acquire) > 0 && self.under_way.load(Ordering::Acquire) == 0;
            if !rests {
                self.changed.notified().await;
            } else if timeout(time, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// The same body, for a client that may take `patience` for each piece of it. After that it ends with an error, and whoever
/// produces it is let go at once: nobody asks a body for more while the client's window is closed.
pub fn hand_over(mut body: Body, patience: Duration, under_way: UnderWay) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let hint = body.size_hint();
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let _under_way = under_way;
        loop {
            let piece = tokio::select! {
                piece = body.frame() => piece,
                () = sender.closed() => return,
            };
            let is_last = piece.is_none();
            if !matches!(timeout(patience, sender.send(piece)).await, Ok(Ok(()))) || is_last {
                return;
            }
        }
    });
    HandedOver { pieces, hint, ended: false }.boxed_unsync()
}

struct HandedOver {
    /// The last one is `None`: without it, the body is not whole.
    pieces: mpsc::Receiver<Option<Result<Frame<Bytes>, BoxError>>>,
    hint: SizeHint,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the client does not read")]
struct Unheard;

impl hyper::body::Body for HandedOver {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx)).unwrap_or_else(|| Some(Err(Unheard.into())));
        self.ended = piece.as_ref().is_none_or(Result::is_err);
        if let Some(data) = piece.as_ref().and_then(|piece| piece.as_ref().ok()).and_then(Frame::data_ref) {
            let sent = data.len() as u64;
            let mut hint = SizeHint::new();
            hint.set_lower(self.hint.lower().saturating_sub(sent));
            if let Some(upper) = self.hint.upper() {
                hint.set_upper(upper.saturating_sub(sent));
            }
            self.hint = hint;
        }
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;
    use crate::body::full;

    #[tokio::test]
    async fn an_answer_that_is_read_comes_whole() {
        let activity = Arc::new(Activity::default());
        let body = hand_over(full("all of it"), Duration::from_secs(300), Activity::begin(&activity));
        assert_eq!(body.size_hint().exact(), Some(9));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "all of it");
        activity.rests_for(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_with_an_error() {
        let activity = Arc::new(Activity::default());
        let endless = futures_util::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from("piece"))));
        let body = StreamBody::new(endless).boxed_unsync();
        let mut body = hand_over(body, Duration::from_millis(10), Activity::begin(&activity));
        // Its producer is gone before anybody has asked for a piece.
        activity.rests_for(Duration::ZERO).await;
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
    }
}
