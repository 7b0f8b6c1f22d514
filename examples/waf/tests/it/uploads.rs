//! FAULTS 43 to 45: uploads that are too slow, too large, or named like a path.

use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::http::read_to_end;
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, request};

const SMALL: &str = "[waf.admin]\nmax_upload_bytes = 100000\nupload_timeout_seconds = 0.5";

fn head(length: &str) -> String {
    format!(
        "POST /api/v1/wasm/reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: multipart/form-data; boundary=frontier\r\n{length}\r\n\r\n"
    )
}

const FILE: &str = "--frontier\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";

#[tokio::test]
async fn an_upload_that_says_it_is_too_large_is_refused_unread() {
    let node = Node::configured(&Module::new("1.0.0"), SMALL);
    let mut stream = TcpStream::connect(node.admin).await.unwrap();
    stream.write_all(head("Content-Length: 100000000000").as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn an_upload_that_does_not_say_so_is_cut_at_the_cap() {
    let node = Node::configured(&Module::new("1.0.0"), SMALL);
    let before = memory(node.id());
    let stream = TcpStream::connect(node.admin).await.unwrap();
    let (mut answers, mut stream) = stream.into_split();
    stream.write_all(head("Transfer-Encoding: chunked").as_bytes()).await.unwrap();
    stream.write_all(format!("{:x}\r\n{FILE}\r\n", FILE.len()).as_bytes()).await.unwrap();
    let endless = async move {
        let chunk = [b"100000\r\n", &[0; 1 << 20][..], b"\r\n"].concat();
        // Until the node has had enough, or ten times what would show in its memory.
        for _ in 0..1024 {
            if stream.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    let sending = tokio::spawn(endless);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match answers.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&piece[..read]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    drop(answers);
    sending.await.unwrap();
    let grown = memory(node.id()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

/// Begins an upload that says nothing after its first line.
pub async fn begin(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.admin).await.unwrap();
    stream.write_all(head("Content-Length: 50000").as_bytes()).await.unwrap();
    stream.write_all(FILE.as_bytes()).await.unwrap();
    stream
}

/// Waits until the node has given an upload up.
pub async fn is_cut(mut stream: TcpStream) {
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
}

#[tokio::test]
async fn a_slow_upload_is_cut_and_nobody_else_waits() {
    let node = Node::configured(&Module::new("1.0.0"), SMALL);
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(begin(&node).await);
    }
    for _ in 0..50 {
        assert_eq!(node.get("/").await.status, StatusCode::OK);
    }
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, StatusCode::OK);
    for stream in slow {
        is_cut(stream).await;
    }
}

/// The uploads are open all the while: each of them is finished in the end, and taken.
#[tokio::test]
async fn the_data_plane_answers_while_slow_uploads_trickle() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.admin]\nupload_timeout_seconds = 3600");
    let module = Module::new("1.1.0").bytes();
    let before = b"--frontier\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nuniversal-waf\r\n";
    let body = [&before[..], FILE.as_bytes(), &module, b"\r\n--frontier--\r\n"].concat();
    let head = head(&format!("Content-Length: {}\r\nConnection: close", body.len()));
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(node.admin).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for byte in body[..20].chunks(1) {
        for stream in &mut slow {
            stream.write_all(byte).await.unwrap();
        }
        for _ in 0..10 {
            assert_eq!(node.get("/").await.status, StatusCode::OK);
            assert_eq!(node.get("/?do=b").await.status, StatusCode::FORBIDDEN);
        }
        assert_eq!(node.version().await["version"], "1.0.0");
    }
    // Those that serve requests are not kept from a reload either.
    assert_eq!(node.upload(&Module::new("1.0.1").bytes()).await.status, StatusCode::OK);
    for mut stream in slow {
        let nothing = stream.try_read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "it is still open, and unanswered");
        stream.write_all(&body[20..]).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    assert_eq!(node.version().await["version"], "1.1.0");
}

#[tokio::test]
async fn names_that_are_paths_are_refused_and_leave_nothing_behind() {
    let node = Node::start(&Module::new("1.0.0"));
    let module = Module::new("1.1.0").bytes();
    let before = files(&node);
    let long = "x".repeat(10_000);
    for name in ["../waf", "..", ".", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", " ", "é", "", &long, ".hidden"] {
        let fields = [("name", None, name.as_bytes()), ("file", Some("x.wasm"), &module[..])];
        let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&fields).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "the name {name:?}");
    }
    for file in ["../../x.wasm", "/tmp/x.wasm", "a\\\\b", "..", &long] {
        let fields = [("name", None, &b"universal-waf"[..]), ("file", Some(file), &module[..])];
        let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&fields).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "the file name {file:?}");
    }
    assert_eq!(files(&node), before);
    assert_eq!(node.version().await["version"], "1.0.0");
}

#[tokio::test]
async fn a_form_that_is_not_the_one_is_refused() {
    let node = Node::start(&Module::new("1.0.0"));
    let module = Module::new("1.1.0").bytes();
    let (name, file) = (("name", None, &b"universal-waf"[..]), ("file", Some("x"), &module[..]));
    for (fields, status) in [
        (&[name][..], StatusCode::BAD_REQUEST),
        (&[file], StatusCode::OK),
        (&[name, ("file", Some("x"), b"")], StatusCode::BAD_REQUEST),
        (&[name, name, file], StatusCode::BAD_REQUEST),
        (&[name, file, ("more", None, b"")], StatusCode::BAD_REQUEST),
        (&[("name", None, b"another"), file], StatusCode::NOT_FOUND),
        (&[file, name], StatusCode::OK),
    ] {
        let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(fields).send().await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).body(module).send().await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn reloads_that_come_too_fast_are_told_when_to_come_back() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.wasm.reload]\nmax_reload_frequency_seconds = 3");
    let modules = [1, 2].map(|minor| Module::new(&format!("1.{minor}.0")).bytes());
    let is_taken = async |module: &[u8]| (node.upload(module).await.status == StatusCode::OK).then_some(());
    // The first one after the start is not held up.
    assert_eq!(is_taken(&modules[0]).await, Some(()));
    let answer = node.upload(&modules[1]).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!((1..=3).contains(&answer.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap()));
    until("its turn", || is_taken(&modules[1])).await;
}

/// A body in pieces of one byte, which is held back as a whole, takes the memory of a body of its length.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn small_pieces_of_a_body_take_no_more_memory_than_large_ones() {
    let node = Node::configured(&Module::new("1.0.0"), "[waf.proxy]\nbody_timeout_seconds = 300");
    assert_eq!(node.get("/").await.status, StatusCode::OK);
    let before = peak(node.id());
    let head = "POST /size HTTP/1.1\r\nHost: a\r\nContent-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\
                Connection: close\r\n\r\n";
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut stream = TcpStream::connect(node.data).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&b"1\r\n.\r\n".repeat(60_000)).await.unwrap();
        clients.push(stream);
    }
    for mut stream in clients {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("60000"), "{answer}");
    }
    // A frame for each piece took a hundred megabytes.
    let grown = peak(node.id()) - before;
    assert!(grown < 48 << 10, "{grown} KiB more");
}

/// The most memory that a process has had, in KiB.
#[cfg(target_os = "linux")]
fn peak(id: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn files(node: &Node) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![node.folder.path("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            names.push(path.display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    names.sort();
    names
}

/// Resident memory of a process in bytes; 0 where it cannot be read.
fn memory(id: u32) -> usize {
    let pages = std::fs::read_to_string(format!("/proc/{id}/statm")).ok();
    let resident = pages.as_deref().and_then(|pages| pages.split(' ').nth(1)?.parse::<usize>().ok());
    resident.unwrap_or(0) * 4096
}
