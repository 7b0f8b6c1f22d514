//! The replay: an exchange on the loopback interface with the endpoints of Binance and Coinbase, over real HTTP.
//!
//! Its responses have the documented formats, so a plugin cannot tell the difference; the host has to mark the prices
//! as synthetic.
//!
//! | request | response |
//! |---|---|
//! | `GET /api/v3/ping`, `/api/v3/ticker/price`, `/api/v3/depth`, `/api/v3/klines` | as Binance |
//! | `GET /products/{product}/ticker`, `/products/{product}/candles` | as Coinbase Exchange |
//! | `GET /replay/requests` | how often each of these paths was requested |
//! | `POST /replay/fail?with={drop, or an HTTP status}&times={n}` | makes the next n requests fail this way |

mod market;

use std::collections::BTreeMap;
use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use self::market::Listing;

/// An exchange that serves until the process ends.
pub struct Exchange {
    address: SocketAddr,
}

impl Exchange {
    /// Starts the exchange on a free port of the loopback interface.
    pub fn start() -> std::io::Result<Exchange> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let serve = move || runtime.block_on(serve(listener));
        std::thread::Builder::new().name("replay exchange".to_owned()).spawn(serve)?;
        Ok(Exchange { address })
    }

    /// Returns the base URL of both APIs.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(listener: TcpListener) {
    let desk = Arc::new(Desk { opened: Instant::now(), book: Mutex::default() });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    let service = service_fn(|request| ready(desk.answer(&request)));
                    // A client that disconnects is not an error.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            // Out of file descriptors: connections that end will free some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The state of the exchange.
struct Desk {
    opened: Instant,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    requests: BTreeMap<String, u64>,
    /// How to fail the next requests, and how many of them.
    fault: Option<(Fault, u64)>,
}

#[derive(Clone, Copy)]
enum Fault {
    Drop,
    Refuse(StatusCode),
}

/// A response, or why the connection is closed without one.
type Reply = Result<Response<Full<Bytes>>, &'static str>;

impl Desk {
    fn answer<B>(&self, request: &Request<B>) -> Reply {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match (request.method(), path) {
            (&Method::GET, "/replay/requests") => return respond(StatusCode::OK, &json!(book.requests)),
            (&Method::POST, "/replay/fail") => return book.fail(query),
            (&Method::GET, _) => {}
            _ => return respond(StatusCode::METHOD_NOT_ALLOWED, &json!({})),
        }
        let data = self.data(path, query);
        // A path that does not exist is not counted, so that the count stays as short as the table above.
        if !matches!(data, Err((StatusCode::NOT_FOUND, _))) {
            *book.requests.entry(path.to_owned()).or_default() += 1;
        }
        match (book.next_fault(), data) {
            (Some(Fault::Drop), _) => Err("dropped as requested"),
            (Some(Fault::Refuse(status)), _) => respond(status, &json!({ "msg": "refused as requested" })),
            (None, Ok(body)) => respond(StatusCode::OK, &body),
            (None, Err((status, body))) => respond(status, &body),
        }
    }

    /// Returns an endpoint's data, or the status and message of its error.
    fn data(&self, path: &str, query: &str) -> Result<Json, (StatusCode, Json)> {
        let symbol = || {
            let unknown = || (StatusCode::BAD_REQUEST, json!({ "code": -1121, "msg": "Invalid symbol." }));
            parameter(query, "symbol").and_then(Listing::of_symbol).ok_or_else(unknown)
        };
        let product = |product| {
            let unknown = || (StatusCode::NOT_FOUND, json!({ "message": "NotFound" }));
            Listing::of_product(product).ok_or_else(unknown)
        };
        let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(100).clamp(1, 1000);
        let now = self.opened.elapsed().as_secs_f64();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        Ok(match segments[..] {
            ["api", "v3", "ping"] => json!({}),
            ["api", "v3", "ticker", "price"] => symbol()?.ticker(now),
            ["api", "v3", "depth"] => symbol()?.depth(now, limit),
            ["api", "v3", "klines"] => symbol()?.klines(now, limit),
            ["products", id, "ticker"] => product(id)?.product_ticker(now),
            ["products", id, "candles"] => product(id)?.product_candles(now),
            _ => return Err((StatusCode::NOT_FOUND, json!({ "message": "no such path" }))),
        })
    }
}

impl Book {
    /// Handles a request to fail: see the table above.
    fn fail(&mut self, query: &str) -> Reply {
        let fault = match parameter(query, "with") {
            Some("drop") => Some(Fault::Drop),
            status => status.and_then(|status| status.parse().ok()).map(Fault::Refuse),
        };
        let times = parameter(query, "times").and_then(|times| times.parse().ok());
        let (Some(fault), Some(times)) = (fault, times) else {
            return respond(
                StatusCode::BAD_REQUEST,
                &json!({ "message": "expected with=drop or with=STATUS, and times=N" }),
            );
        };
        self.fault = (times > 0).then_some((fault, times));
        respond(StatusCode::OK, &json!({}))
    }

    fn next_fault(&mut self) -> Option<Fault> {
        let (fault, times) = self.fault.take()?;
        self.fault = (times > 1).then_some((fault, times - 1));
        Some(fault)
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(own, _)| *own == name).map(|(_, value)| value)
}

fn respond(status: StatusCode, body: &Json) -> Reply {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if matches!(status, StatusCode::IM_A_TEAPOT | StatusCode::TOO_MANY_REQUESTS) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}
