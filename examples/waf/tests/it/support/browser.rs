//! Headless Chromium, spoken to through chromedriver: the few words of the WebDriver protocol that a test needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::request;
use super::wait::until;

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// A browser with nothing on its page; `None` where there is none.
    pub async fn start() -> Option<Browser> {
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take()?).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.split_once("successfully on port ").map(|(_, port)| port.to_owned()))?;
        // It would end with its pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim_end_matches('.').parse().ok()?));
        let profile = tempfile::tempdir().ok()?;
        let data = format!("--user-data-dir={}", profile.path().display());
        let options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1240,1500",
            &data,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": options}, "timeouts": {"script": 300_000},
        }}});
        let mut browser = Browser { driver, address, session: String::new(), _profile: profile };
        let session = browser.ask(Method::POST, "/session", &wanted).await;
        browser.session = session["sessionId"].as_str()?.to_owned();
        Some(browser)
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.try_ask(method, path, body).await;
        assert!(answer["error"].is_null(), "{path}: {answer}");
        answer
    }

    /// An answer that may be an error.
    async fn try_ask(&self, method: Method, path: &str, body: &Value) -> Value {
        let target = if self.session.is_empty() { path.to_owned() } else { format!("/session/{}{path}", self.session) };
        let wish = request(self.address, method.clone(), &target);
        let answer = if method == Method::GET { wish.send().await } else { wish.json(body).send().await };
        answer.json()["value"].clone()
    }

    pub async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", &json!({ "url": url })).await;
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.ask(Method::POST, "/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// What a script hands to `done`, after another one has been run. Both are not of the page, whose policy lets none in.
    pub async fn run_async(&self, library: &str, script: &str) -> Value {
        self.run(library).await;
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.ask(Method::POST, "/execute/async", &json!({ "script": script, "args": [] })).await
    }

    /// Shows the page in a window of this width, in the light or dark theme.
    pub async fn look(&self, width: u32, dark: bool) {
        let theme = json!([{ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } }]);
        let metrics = json!({ "width": width, "height": if width < 600 { 2600 } else { 1500 }, "deviceScaleFactor": 1, "mobile": width < 600 });
        for (cmd, params) in [
            ("Emulation.setDeviceMetricsOverride", metrics),
            ("Emulation.setEmulatedMedia", json!({ "media": "screen", "features": theme })),
        ] {
            self.ask(Method::POST, "/goog/cdp/execute", &json!({ "cmd": cmd, "params": params })).await;
        }
    }

    /// The text of the element that a selector finds.
    pub async fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({selector:?})?.textContent ?? ''")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element's text has this in it.
    pub async fn wait_for(&self, selector: &str, text: &str) {
        let found = || async move { self.text(selector).await.contains(text).then_some(()) };
        until(&format!("{text:?} in {selector}"), found).await;
    }

    async fn element(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let element = self.ask(Method::POST, "/element", &wanted).await;
        element[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// Types into a field; for a file's field, that is its path.
    pub async fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.ask(Method::POST, &format!("/element/{element}/value"), &json!({ "text": text })).await;
    }

    /// Clicks on what a selector finds; once more if the page was drawn anew between the two.
    pub async fn click(&self, selector: &str) {
        let click = || async move {
            let element = self.element(selector).await;
            let answer = self.try_ask(Method::POST, &format!("/element/{element}/click"), &json!({})).await;
            let is_stale = answer["error"] == "stale element reference";
            assert!(is_stale || answer["error"].is_null(), "{selector}: {answer}");
            (!is_stale).then_some(())
        };
        until(&format!("a click on {selector}"), click).await;
    }

    /// Writes down what the page looks like, if the environment says where.
    pub async fn picture(&self, name: &str) {
        let Ok(folder) = std::env::var("WAF_PICTURES") else { return };
        let base64 = self.ask(Method::GET, "/screenshot", &Value::Null).await;
        let path = Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, base64.as_str().expect("a picture")).expect("a file");
    }
}

/// The driver does not take its browser along when it is killed, so the session is ended first.
impl Drop for Browser {
    fn drop(&mut self) {
        let end =
            format!("DELETE /session/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.session, self.address);
        if let Ok(mut driver) = std::net::TcpStream::connect(self.address) {
            let _ = driver.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = driver.write_all(end.as_bytes()).and_then(|()| driver.read(&mut [0; 1024]));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
