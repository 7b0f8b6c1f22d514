//! The node, and uploads to it at a steady pace.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hotslot::BoxError;
use serde_json::Value;

const TOKEN: &str = "a-token-for-the-load-test";

pub struct Node {
    child: Child,
    pub data: SocketAddr,
    admin: SocketAddr,
    /// Two modules that differ in nothing but their bytes.
    modules: [Vec<u8>; 2],
}

/// What became of the uploads.
#[derive(Default)]
pub struct Swaps {
    pub done: u64,
    pub failed: u64,
    pub median_ms: f64,
    pub longest_ms: f64,
    /// The longest time that any request was held up, as the node measured it.
    pub held_up_ms: f64,
}

impl Node {
    /// Starts a node whose instances answer so many requests each.
    pub fn start(
        folder: &Path,
        upstream: SocketAddr,
        module: &Path,
        calls_per_instance: u32,
    ) -> Result<Node, BoxError> {
        let program = std::env::current_exe()?.with_file_name("waf");
        fs::create_dir_all(folder)?;
        let bytes = fs::read(module).map_err(|error| format!("{}: {error}", module.display()))?;
        let config = folder.join("waf.toml");
        let text = format!(
            "[waf]\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\ndata = {:?}\n\
             [waf.admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n\
             upload_timeout_seconds = 86400\n\
             [waf.wasm]\nmodule = {module:?}\n[waf.wasm.reload]\nmax_reload_frequency_seconds = 0\n\
             [waf.wasm.limits]\ncalls_per_instance = {calls_per_instance}\n",
            folder.join("data")
        );
        fs::write(&config, text)?;
        let mut child = Command::new(&program)
            .arg("--config")
            .arg(config)
            .env("WAF_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}: build it first", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut address = |what| -> Option<SocketAddr> {
            let line = lines.find(|line| line.contains(what))?;
            line.split_once("http://")?.1.split(',').next()?.parse().ok()
        };
        let (data, admin) = (address("serving on"), address("admin API"));
        let (data, admin) = data.zip(admin).ok_or("the node does not start")?;
        Ok(Node { child, data, admin, modules: [1, 2].map(|salt| salted(&bytes, salt)) })
    }

    /// Runs `work` while modules are swapped, so many a second.
    pub fn while_swapping<R>(&self, rate: u32, work: impl FnOnce() -> R) -> Result<(R, Swaps), BoxError> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swaps = scope.spawn(|| self.swap_until(&done, Duration::from_secs(1) / rate));
            let result = work();
            done.store(true, Relaxed);
            Ok((result, swaps.join().map_err(|_| "the swapping thread panicked")??))
        })
    }

    /// Runs `work` while so many uploads send a byte now and then; says also how many of them were open to the end.
    pub fn while_uploads_trickle<R>(&self, uploads: u32, work: impl FnOnce() -> R) -> Result<(R, u32), BoxError> {
        let head = format!(
            "POST /api/v1/wasm/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: multipart/form-data; boundary=frontier\r\nContent-Length: 1000000\r\n\r\n\
             --frontier\r\nContent-Disposition: form-data; name=\"file\"; filename=\"module.wasm\"\r\n\r\n"
        );
        let mut slow = Vec::new();
        for _ in 0..uploads {
            let mut stream = TcpStream::connect(self.admin)?;
            stream.write_all(head.as_bytes())?;
            stream.set_nonblocking(true)?;
            slow.push(stream);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let trickle = scope.spawn(|| {
                while !done.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(100));
                    // One that the node has ended does not count in the end.
                    slow.iter_mut().for_each(|stream| drop(stream.write(&[0])));
                }
                let is_open = |stream: &mut TcpStream| {
                    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
                };
                slow.iter_mut().filter_map(|stream| is_open(stream).then_some(())).count() as u32
            });
            let result = work();
            done.store(true, Relaxed);
            Ok((result, trickle.join().map_err(|_| "the uploading thread panicked")?))
        })
    }

    fn swap_until(&self, done: &AtomicBool, pace: Duration) -> Result<Swaps, BoxError> {
        let (mut swaps, mut times) = (Swaps::default(), Vec::new());
        let mut connection = BufReader::new(TcpStream::connect(self.admin)?);
        let mut next = Instant::now();
        while !done.load(Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            // After a pause that was too long there is no catching up.
            next = (next + pace).max(Instant::now());
            let answer = upload(&mut connection, &self.modules[(swaps.done % 2) as usize])?;
            if answer["success"] == true {
                swaps.done += 1;
                times.push(answer["duration_ms"].as_f64().unwrap_or_default());
                swaps.held_up_ms = swaps.held_up_ms.max(answer["downtime_ms"].as_f64().unwrap_or_default());
            } else {
                swaps.failed += 1;
            }
        }
        times.sort_by(f64::total_cmp);
        swaps.median_ms = times.get(times.len() / 2).copied().unwrap_or_default();
        swaps.longest_ms = times.last().copied().unwrap_or_default();
        Ok(swaps)
    }
}

/// The same module with a section more, which nothing reads.
fn salted(module: &[u8], salt: u8) -> Vec<u8> {
    let section = [&[0, 6, 4][..], b"salt", &[salt]].concat();
    [module, &section].concat()
}

/// Uploads a module over a connection that is kept.
fn upload(connection: &mut BufReader<TcpStream>, module: &[u8]) -> Result<Value, BoxError> {
    let body = [
        &b"--frontier\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nuniversal-waf\r\n--frontier\r\n\
           Content-Disposition: form-data; name=\"file\"; filename=\"module.wasm\"\r\n\r\n"[..],
        module,
        b"\r\n--frontier--\r\n",
    ]
    .concat();
    let head = format!(
        "POST /api/v1/wasm/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: multipart/form-data; boundary=frontier\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    connection.get_mut().write_all(&[head.as_bytes(), &body].concat())?;
    let (mut length, mut line) = (0, String::new());
    loop {
        line.clear();
        connection.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
