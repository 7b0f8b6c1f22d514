//! A proxy that does nothing but pass requests on, of the same parts as the node's: what of the node's time is not its own.

use std::net::SocketAddr;
use std::sync::mpsc;

use hotslot::BoxError;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// It runs until the program ends.
pub struct Bare {
    pub address: SocketAddr,
}

impl Bare {
    pub fn start(to: SocketAddr) -> Result<Bare, BoxError> {
        let (tell, told) = mpsc::channel();
        std::thread::Builder::new().name("bare".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("threads");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let _ = tell.send(listener.local_addr().expect("it is bound"));
                serve(listener, to).await;
            });
        })?;
        Ok(Bare { address: told.recv()? })
    }
}

async fn serve(listener: TcpListener, to: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let client = client.clone();
        let pass_on = service_fn(move |mut request: Request<Incoming>| {
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let uri: Uri = format!("http://{to}{path}").parse().expect("it was one before");
            *request.uri_mut() = uri;
            client.request(request)
        });
        tokio::spawn(http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), pass_on));
    }
}
