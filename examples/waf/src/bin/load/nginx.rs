//! nginx, as the upstream of both proxies and as the one to compare with.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hotslot::BoxError;

/// Passes a request on as the node does.
const PASS_ON: &str = "proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                       proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                       proxy_set_header X-Request-Id $request_id;";

fn origin(to: SocketAddr) -> String {
    format!("upstream origin {{ server {to}; keepalive 64; }}")
}

/// What goes where in a configuration.
#[derive(Default)]
struct Parts<'a> {
    main: &'a str,
    http: &'a str,
    location: &'a str,
}

pub struct Nginx {
    pub address: SocketAddr,
    config: PathBuf,
}

impl Nginx {
    /// Answers every request with a line.
    pub fn upstream(folder: &Path) -> Result<Nginx, BoxError> {
        Nginx::start(folder, "upstream", Parts { location: "return 200 \"hello\\n\";", ..Parts::default() })
    }

    /// Passes every request on, over connections that it keeps.
    pub fn proxy(folder: &Path, to: SocketAddr) -> Result<Nginx, BoxError> {
        Nginx::start(folder, "proxy", Parts { http: &origin(to), location: PASS_ON, ..Parts::default() })
    }

    /// The same with ModSecurity and the Core Rule Set, as Debian packages them; `None`, with a line that says so, where they are
    /// not installed.
    pub fn with_modsecurity(folder: &Path, to: SocketAddr) -> Result<Option<Nginx>, BoxError> {
        const MODULE: &str = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so";
        const CONFIG: &str = "/etc/nginx/modsecurity.conf";
        const RULES: &str = "/usr/share/modsecurity-crs/owasp-crs.load";
        if let Some(missing) = [MODULE, CONFIG, RULES].into_iter().find(|path| !Path::new(path).exists()) {
            eprintln!("without nginx with ModSecurity: {missing} is missing");
            return Ok(None);
        }
        let rules = folder.join("modsecurity.conf");
        // nginx's ModSecurity does not know IncludeOptional, with which the packaged list of the rules begins.
        let list = fs::read_to_string(RULES)?;
        let optional = |line: &str| {
            let path = line.trim().strip_prefix("IncludeOptional ")?.trim();
            Path::new(path).exists().then(|| format!("Include {path}"))
        };
        let includes: Vec<String> = list
            .lines()
            .filter_map(|line| if line.contains("IncludeOptional") { optional(line) } else { Some(line.to_owned()) })
            .collect();
        // As packaged it only detects, and logs what it finds.
        let text = format!("Include {CONFIG}\nSecRuleEngine On\nSecAuditEngine Off\n{}\n", includes.join("\n"));
        fs::write(&rules, text)?;
        let parts = Parts {
            main: &format!("load_module {MODULE};"),
            http: &format!("{} modsecurity on; modsecurity_rules_file {};", origin(to), rules.display()),
            location: PASS_ON,
        };
        Nginx::start(folder, "inspecting", parts).map(Some)
    }

    fn start(folder: &Path, name: &str, Parts { main, http, location }: Parts<'_>) -> Result<Nginx, BoxError> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        // Free a moment ago: nginx cannot be asked to choose.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let place = folder.display();
        let text = format!(
            "{main} pid {place}/pid; error_log {place}/error.log; worker_processes auto; worker_rlimit_nofile 4096;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; {http}\n\
             client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
             uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
             server {{ listen {address}; location / {{ {location} }} }} }}\n"
        );
        let config = folder.join("nginx.conf");
        fs::write(&config, text)?;
        let nginx = Nginx { address, config };
        nginx.tell(&[])?;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                return Err("nginx does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(nginx)
    }

    fn tell(&self, arguments: &[&str]) -> Result<(), BoxError> {
        let output = Command::new("nginx").arg("-c").arg(&self.config).args(arguments).output();
        let output = output.map_err(|error| format!("nginx: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }

    /// Runs `work` while nginx is reloaded again and again; says also how often.
    pub fn while_reloading<R>(&self, pause: Duration, work: impl FnOnce() -> R) -> (R, u64) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reloads = scope.spawn(|| {
                let mut reloads = 0;
                while !done.load(Relaxed) {
                    let next = Instant::now() + pause;
                    reloads += u64::from(self.tell(&["-s", "reload"]).is_ok());
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                reloads
            });
            let result = work();
            done.store(true, Relaxed);
            (result, reloads.join().unwrap_or(0))
        })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.tell(&["-s", "stop"]);
    }
}
