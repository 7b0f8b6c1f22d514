//! Nobody notices a swap: no request fails while modules come and go as fast as they can be uploaded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{Module, Node};

const SWAPS: u32 = 100;

/// Clients that ask for a page again and again, each on one connection to the end: a swap must not close it either.
pub struct Clients {
    done: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(address: SocketAddr) -> Clients {
        let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| tokio::spawn(ask(address, Arc::clone(&done), Arc::clone(&answered)));
        let tasks = (0..8).map(client).collect();
        Clients { done, answered, tasks }
    }

    /// How many answers they got, each of which was the page.
    pub async fn end(self) -> u64 {
        self.done.store(true, Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.answered.load(Relaxed)
    }
}

async fn ask(address: SocketAddr, done: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    while !done.load(Relaxed) {
        let request = Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.unwrap();
        answered.fetch_add(1, Relaxed);
        // The connection is ready again only when its task has seen the end of the body.
        sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn no_request_is_lost_over_a_hundred_swaps() {
    let node = Node::start(&Module::new("1.0.0"));
    let clients = Clients::start(node.data);
    let modules = [1, 2].map(|salt| Module::new("1.0.0").salted(salt).bytes());
    let mut meanwhile = 0;
    for swap in 0..SWAPS {
        let answer = node.upload(&modules[swap as usize % 2]).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let answer = answer.json();
        meanwhile += answer["requests_during_reload"].as_u64().unwrap();
        assert!(answer["downtime_ms"].as_f64().unwrap() >= 0.0);
    }
    let answered = clients.end().await;
    assert!(meanwhile > 0 && meanwhile <= answered, "{meanwhile} of {answered} requests came across a reload");
    assert_eq!(node.version().await["generation"], SWAPS + 1);
}

/// FAULTS 29 and 30, through the API.
#[tokio::test]
async fn reloads_at_the_same_time_take_turns() {
    let node = Arc::new(Node::start(&Module::new("1.0.0")));
    let uploads: Vec<_> = (0..16)
        .map(|salt| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.upload(&Module::new("1.0.0").salted(salt + 1).bytes()).await.status })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap(), StatusCode::OK);
    }
    let history = node.admin("/api/v1/wasm/history").await;
    let generations: Vec<_> =
        history["reloads"].as_array().unwrap().iter().map(|reload| reload["generation"].as_u64().unwrap()).collect();
    assert!(generations.is_sorted_by(|later, earlier| later > earlier), "{generations:?}");
    let metrics = crate::support::get(node.admin, "/metrics").await;
    let retired = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("wasm_retired_generations{module=\"universal-waf\"} "));
    assert!(retired.unwrap().parse::<u32>().unwrap() < 16);
}
