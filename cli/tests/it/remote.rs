//! `push` and `pull`, against the servers that people have: the distribution's registry, and a store that speaks S3. Where a
//! program is missing, its test says so and is skipped.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Folder, Ran};

/// Longer than any server takes to come up.
const FOREVER: Duration = Duration::from_secs(120);

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("a port").port()
}

/// Finds a program in `PATH`, or where `ci/servers` installs it.
fn program(name: &str, installed: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers").join(installed);
    let found =
        std::env::split_paths(&path).chain([servers]).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no {name} in PATH or in target/servers: see ci/servers");
    }
    found
}

fn started(mut command: Command, port: u16) -> Server {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let (server, began) = (Server(child), Instant::now());
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < FOREVER, "{command:?} never listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

/// A folder with a signed plugin.
fn signed() -> Folder {
    let folder = Folder::new();
    folder.write("plugin.wasm", wat::parse_str("(module (@custom \"a\" \"b\"))").expect("a module"));
    run(&folder, "keygen @alice --no-password", &[]).ok();
    run(&folder, "trust init --key @alice.pub --out @root.json", &[]).ok();
    run(&folder, "sign @plugin.wasm --key @alice.key --slot rules --counter 7 --interface waf/2", &[]).ok();
    folder
}

/// Runs a command; words that start with `@` are files of the folder.
fn run(folder: &Folder, command: &str, environment: &[(&str, &str)]) -> Ran {
    let words = command.split(' ').map(|word| match word.strip_prefix('@') {
        Some(file) => folder.path(file).to_str().expect("UTF-8").to_owned(),
        None => word.to_owned(),
    });
    let mut hotslot = Command::new(env!("CARGO_BIN_EXE_cargo-hotslot"));
    hotslot.args(words).envs(environment.iter().copied());
    for name in ["AWS_ENDPOINT_URL", "AWS_REGION", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        if !environment.iter().any(|(set, _)| *set == name) {
            hotslot.env_remove(name);
        }
    }
    let output = hotslot.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes UTF-8");
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Checks that what was pulled is what was pushed.
fn same(folder: &Folder, pulled: &str) {
    for extension in ["", ".manifest", ".manifest.minisig"] {
        let read = |name: &str| std::fs::read(folder.path(&format!("{name}{extension}"))).expect("a file");
        assert!(read("plugin.wasm") == read(pulled), "{extension}");
    }
}

/// The password `secret` of the user `alice`.
const HTPASSWD: &str = "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
const ALICE: [(&str, &str); 2] = [("HOTSLOT_REGISTRY_USER", "alice"), ("HOTSLOT_REGISTRY_PASSWORD", "secret")];

/// The distribution's registry, which asks who comes.
fn registry(folder: &Folder, tls: &str) -> Option<(Server, u16)> {
    let (program, port) = (program("docker-registry", "registry")?, free_port());
    let (data, users) = (folder.path("registry"), folder.write("htpasswd", HTPASSWD));
    let config = format!(
        "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {data:?} }} }}\n\
         http: {{ addr: \"127.0.0.1:{port}\"{tls} }}\nauth: {{ htpasswd: {{ realm: test, path: {users:?} }} }}\n"
    );
    let config = folder.write("registry.yml", config);
    let mut command = Command::new(program);
    command.arg("serve").arg(config);
    Some((started(command, port), port))
}

#[test]
fn a_plugin_goes_to_an_oci_registry_and_comes_back_by_tag_and_by_digest() {
    let folder = signed();
    let Some((_registry, port)) = registry(&folder, "") else { return };
    let place = format!("oci://127.0.0.1:{port}/team/rules");
    let said = run(&folder, &format!("push @plugin.wasm {place}:1.0 --plain-http"), &ALICE).ok();
    let digest = said.rsplit_once("sha256:").expect("a digest").1.trim().to_owned();
    assert_eq!(digest.len(), 64, "{said}");
    // What is there is not sent again.
    assert_eq!(run(&folder, &format!("push @plugin.wasm {place}:1.0 --plain-http"), &ALICE).ok(), said);
    let verified = "--root @root.json --slot rules --plain-http";
    let said = run(&folder, &format!("pull {place}:1.0 --out @tagged {verified}"), &ALICE).ok();
    assert!(said.contains("for the slot rules, counter 7, signed by "), "{said}");
    same(&folder, "tagged");
    run(&folder, &format!("pull {place}@sha256:{digest} --out @named {verified}"), &ALICE).ok();
    same(&folder, "named");

    let error = run(&folder, &format!("pull {place}:1.0 --out @x --plain-http"), &[]).failed(1);
    assert!(error.contains("401"), "{error}");
    let error = run(&folder, &format!("pull {place}:2.0 --out @x --plain-http"), &ALICE).failed(1);
    assert!(error.contains("404"), "{error}");
    let error =
        run(&folder, &format!("pull {place}:1.0 --out @x --root @root.json --slot prices --plain-http"), &ALICE);
    assert!(error.failed(1).contains("signed for the slot \"rules\""));
    assert!(!folder.path("x").exists(), "nothing is written that is not what it should be");
    let error = run(&folder, &format!("push @plugin.wasm {place}@sha256:{digest} --plain-http"), &ALICE).failed(2);
    assert!(error.contains("push to a tag"), "{error}");
    let error = run(&folder, &format!("push @plugin.wasm {place}:1.0"), &ALICE).failed(1);
    assert!(!error.is_empty(), "without TLS nothing is sent unless that was said");

    // Somebody changes a layer in the registry's storage.
    let plugin = std::fs::read(folder.path("plugin.wasm")).expect("a file");
    let changed =
        files(&folder.path("registry")).into_iter().filter(|file| std::fs::read(file).is_ok_and(|it| it == plugin));
    let mut evil = plugin.clone();
    *evil.last_mut().expect("bytes") ^= 1;
    assert!(changed.map(|file| std::fs::write(file, &evil).expect("a file")).count() > 0);
    let error = run(&folder, &format!("pull {place}:1.0 --out @x --plain-http"), &ALICE).failed(1);
    assert!(error.contains("changed") || error.contains("digest"), "{error}");
    assert!(!folder.path("x").exists());
}

#[test]
fn a_registry_is_spoken_to_over_tls_and_trusted_by_its_certificate() {
    let folder = signed();
    let (certificate, key) = (folder.path("r.pem"), folder.path("r.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
    if !openssl.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let tls = format!(", tls: {{ certificate: {certificate:?}, key: {key:?} }}");
    let Some((_registry, port)) = registry(&folder, &tls) else { return };
    let place = format!("oci://localhost:{port}/team/rules:1.0");
    let error = run(&folder, &format!("push @plugin.wasm {place}"), &ALICE).failed(1);
    assert!(error.contains("certificate") || error.contains("UnknownIssuer"), "{error}");
    run(&folder, &format!("push @plugin.wasm {place} --ca @r.pem"), &ALICE).ok();
    run(&folder, &format!("pull {place} --ca @r.pem --out @pulled --root @root.json --slot rules"), &ALICE).ok();
    same(&folder, "pulled");
    let error = run(&folder, &format!("pull {place} --ca @root.json --out @x"), &ALICE).failed(2);
    assert!(error.contains("no certificate in PEM"), "{error}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A registry that wants a token from elsewhere, as the public ones do; it has nothing else.
#[test]
fn a_registrys_token_is_fetched_with_the_users_password_and_used() {
    let folder = signed();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // Asked without a token, then for one, then with it.
        for stream in listener.incoming().take(3) {
            let mut stream = stream.expect("a client");
            let head = head(&mut stream);
            let answer = if head.starts_with("GET /token") {
                let body = "{\"token\":\"the-token\"}";
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()) + "Connection: close\r\n\r\n" + body
            } else if head.contains("Bearer the-token") {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            } else {
                let challenge = format!("realm=\"http://{address}/token\",service=\"it\",scope=\"repository:a:pull\"");
                format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer {challenge}\r\n")
                    + "Content-Length: 0\r\nConnection: close\r\n\r\n"
            };
            stream.write_all(answer.as_bytes()).expect("to be heard");
            seen.push(head);
        }
        seen
    });
    let error = run(&folder, &format!("pull oci://{address}/a:1 --out @x --plain-http"), &ALICE).failed(1);
    assert!(error.contains("404"), "{error}");
    let seen = server.join().expect("three requests");
    assert!(seen[1].starts_with("GET /token?service=it&scope=repository%3Aa%3Apull "), "{seen:?}");
    assert!(seen[1].contains("Basic YWxpY2U6c2VjcmV0"), "{seen:?}");
}

/// The head of a request.
fn head(stream: &mut TcpStream) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        read.push(byte[0]);
    }
    String::from_utf8(read).expect("text")
}

const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "alice"), ("AWS_SECRET_ACCESS_KEY", "a-secret-of-alice"), ("AWS_REGION", "us-east-1")];

/// A store that checks who signs, with the bucket `plugins`.
fn store(folder: &Folder) -> Option<(Server, SocketAddr)> {
    let program = program("weed", "seaweedfs/bin")?;
    // It takes for each of its parts another port 10,000 above.
    let port = || loop {
        let port = free_port();
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            break port;
        }
    };
    let [master, volume, filer, s3] = std::array::from_fn(|_| port());
    let identities = r#"{"identities":[{"name":"alice","credentials":[{"accessKey":"alice","secretKey":"a-secret-of-alice"}],
        "actions":["Admin","Read","Write","List"]}]}"#;
    let config = folder.write("s3.json", identities);
    let data = folder.path("store");
    std::fs::create_dir(&data).expect("a folder");
    let mut command = Command::new(program);
    command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-volume.max=5"]);
    command.arg(format!("-dir={}", data.display())).arg(format!("-s3.config={}", config.display()));
    command.arg(format!("-master.port={master}")).arg(format!("-volume.port={volume}"));
    command.arg(format!("-filer.port={filer}")).arg(format!("-s3.port={s3}")).current_dir(&data);
    let server = started(command, s3);
    let address = SocketAddr::from(([127, 0, 0, 1], s3));
    // A bucket is a folder of its filer.
    let began = Instant::now();
    while ureq::post(format!("http://127.0.0.1:{filer}/buckets/plugins/")).send_empty().is_err() {
        assert!(began.elapsed() < FOREVER, "the store takes no bucket");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some((server, address))
}

#[test]
fn a_plugin_goes_to_an_s3_store_and_comes_back() {
    let folder = signed();
    let Some((_store, address)) = store(&folder) else { return };
    let endpoint = format!("http://{address}");
    let mut environment = KEYS.to_vec();
    environment.push(("AWS_ENDPOINT_URL", &endpoint));
    let place = "s3://plugins/team/rules/plugin.wasm --plain-http";
    let said = run(&folder, &format!("push @plugin.wasm {place}"), &environment).ok();
    assert!(said.starts_with("s3://plugins/team/rules/plugin.wasm: "), "{said}");
    let said = run(&folder, &format!("pull {place} --out @pulled --root @root.json --slot rules"), &environment).ok();
    assert!(said.contains("counter 7"), "{said}");
    same(&folder, "pulled");

    let error =
        run(&folder, &format!("push @plugin.wasm {}", place.replace(" --plain-http", "")), &environment).failed(2);
    assert!(error.contains("without TLS"), "{error}");
    let error = run(&folder, "pull s3://plugins/nothing --plain-http --out @x", &environment).failed(1);
    assert!(error.contains("404"), "{error}");
    let mut stranger = environment.clone();
    stranger[1].1 = "another-secret";
    let error = run(&folder, &format!("pull {place} --out @x"), &stranger).failed(1);
    assert!(error.contains("403"), "{error}");

    // Somebody with the keys to the store puts another plugin there, and has no key that signs.
    folder.write("evil.wasm", b"\0asm\x01\0\0\0\0\x02\x01z");
    run(&folder, "keygen @mallory --no-password", &[]).ok();
    run(&folder, "sign @evil.wasm --key @mallory.key --slot rules --counter 9 --interface waf/2", &[]).ok();
    run(&folder, &format!("push @evil.wasm {place}"), &environment).ok();
    let error = run(&folder, &format!("pull {place} --out @x --root @root.json --slot rules"), &environment).failed(1);
    assert!(error.contains("0 of 1 keys"), "{error}");
    assert!(!folder.path("x").exists());
}

#[test]
fn what_is_not_signed_or_is_no_place_goes_nowhere() {
    let folder = signed();
    folder.write("unsigned.wasm", b"\0asm\x01\0\0\0");
    let error = run(&folder, "push @unsigned.wasm oci://127.0.0.1:1/a:1", &[]).failed(2);
    assert!(error.contains("sign it first"), "{error}");
    folder.write("plugin.wasm", b"\0asm\x01\0\0\0");
    let error = run(&folder, "push @plugin.wasm oci://127.0.0.1:1/a:1", &[]).failed(1);
    assert!(error.contains("was changed"), "{error}");
    for place in ["ftp://x/y", "oci://x", "s3://bucket", "plugin.wasm"] {
        let ran = run(&folder, &format!("pull {place} --out @x"), &[]);
        assert_eq!(ran.status, Some(2), "{place}: {}", ran.err);
    }
    let error = run(&folder, "pull http://192.0.2.1:1 --out @x", &[("HOTSLOT_TOKEN", "x")]).failed(2);
    assert!(error.contains("without TLS"), "{error}");
    let ran = run(&folder, "pull https://127.0.0.1:1 --out @x", &[("HOTSLOT_TOKEN", "x")]);
    assert_eq!(ran.status, Some(1), "{}", ran.err);
}
