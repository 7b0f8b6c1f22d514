//! A trial on the page: seen, held and decided there, on a phone and on a desk, in light and dark, and by people who do not see
//! it.

use hyper::Method;
use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::node::Folder;
use crate::support::wait::until;
use crate::support::{Module, Node, TOKEN, request};

/// Shapes and themes that the page is looked at in.
const LOOKS: [(&str, u32, bool); 4] = [
    ("phone-light", 390, false),
    ("phone-dark", 390, true),
    ("desktop-light", 1240, false),
    ("desktop-dark", 1240, true),
];

async fn begin(node: &Node, module: &Module, mode: &[u8]) {
    let bytes = module.bytes();
    let form: [(&str, Option<&str>, &[u8]); 2] = [("mode", None, mode), ("file", Some("new.wasm"), &bytes)];
    let answer = request(node.admin, Method::POST, "/api/v1/wasm/reload").token(TOKEN).form(&form).send().await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

async fn traffic(node: &Node) {
    for client in 0..40 {
        let target = ["/", "/search?q=%27--&token=abc123", "/products/42?page=3"][client % 3];
        let visit = request(node.data, Method::GET, target).header("x-client", &client.to_string());
        visit.header("cookie", "session=abc").header("user-agent", "Mozilla/5.0").send().await;
    }
}

fn node() -> Node {
    let terms = "[waf.trial]\nsticky = \"header:x-client\"\nmin_calls_per_step = 1000\n\
                 [waf.wasm.limits]\ndeadline_milliseconds = 5000";
    Folder::new(&Module::new("1.0.0"), terms).start()
}

/// Waits until a script returns true.
async fn holds(browser: &Browser, script: &str) {
    until(script, || async move { (browser.run(script).await == Value::Bool(true)).then_some(()) }).await;
}

#[tokio::test]
async fn a_trial_is_held_and_decided_on_the_page() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let node = node();
    browser.open(&format!("http://{}/", node.admin)).await;
    browser.wait_for("#version", "v1").await;
    browser.type_into("#token", TOKEN).await;
    let path = node.folder.path("new.wasm");
    std::fs::write(&path, Module::new("1.1.0").always('b').bytes()).unwrap();
    browser.type_into("#file", path.to_str().unwrap()).await;
    browser.run("document.querySelector('#mode').value = 'shadow'").await;
    browser.click("#reload").await;
    browser.wait_for("#note", "v1.1 is being tried as a shadow").await;
    traffic(&node).await;
    browser.wait_for("#trial-diff", "block").await;
    browser.wait_for("#trial-diff", "test-rule").await;
    assert_eq!(browser.text("#version").await, "v1");

    // The first button of the question, and Escape, change nothing.
    browser.click("#trial-promote").await;
    browser.wait_for("#confirm-text", "judges all requests to universal-waf, in the place of v1").await;
    assert_eq!(browser.run("return document.activeElement.id").await, "confirm-no");
    browser.click("#confirm-no").await;
    assert_eq!(browser.text("#trial-state").await, "running");
    browser.click("#trial-pause").await;
    browser.wait_for("#confirm-text", "until it is resumed").await;
    browser.click("#confirm-yes").await;
    browser.wait_for("#trial-state", "paused").await;
    // What has the focus keeps it while the page is drawn anew.
    holds(&browser, "return document.activeElement.id == 'trial-pause'").await;
    browser.click("#trial-abort").await;
    browser.wait_for("#confirm-text", "v1 judges all of them, as before the trial").await;
    browser.click("#confirm-yes").await;
    browser.wait_for("#trial-state", "aborted").await;
    browser.wait_for("#history", "asked for on the page").await;
    holds(&browser, "return document.querySelector('#trial .buttons').hidden").await;

    begin(&node, &Module::new("1.2.0"), b"canary").await;
    browser.wait_for("#trial-version", "v1.2").await;
    browser.wait_for("#trial-steps li[aria-current=step]", "5 %").await;
    browser.click("#trial-promote").await;
    browser.wait_for("#confirm-yes", "Promote v1.2").await;
    browser.click("#confirm-yes").await;
    browser.wait_for("#trial-state", "promoted").await;
    browser.wait_for("#version", "v1.2").await;
}

#[tokio::test]
async fn a_trial_fits_a_phone_and_axe_finds_nothing_serious() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let axe = axe();
    if axe.is_none() {
        println!("axe-core is not here: npm install --prefix target/axe axe-core");
    }
    let node = node();
    begin(&node, &Module::new("1.1.0").always('b'), b"shadow").await;
    traffic(&node).await;
    browser.open(&format!("http://{}/", node.admin)).await;
    for mode in ["shadow", "canary"] {
        if mode == "canary" {
            let abort = request(node.admin, Method::POST, "/api/v1/wasm/abort").token(TOKEN).send().await;
            assert!(abort.status.is_success(), "{}", abort.text());
            begin(&node, &Module::new("1.2.0"), b"canary").await;
            traffic(&node).await;
        }
        browser.wait_for("#trial-mode", mode).await;
        browser.wait_for("#trial-state", "running").await;
        browser.wait_for("#trial-diff", if mode == "shadow" { "test-rule" } else { "allow" }).await;
        for (look, width, dark) in LOOKS {
            browser.look(width, dark).await;
            let wide = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(wide.as_i64().unwrap() <= 0, "{mode} {look}: {wide} pixels too wide");
            browser.picture(&format!("trial-{mode}-{look}")).await;
            if let Some(axe) = &axe {
                let found = browser.run_async(axe, AXE).await;
                assert_eq!(found.as_array().map(Vec::len), Some(0), "{mode} {look}: {found:#}");
            }
        }
    }
    browser.look(390, true).await;
    browser.click("#trial-promote").await;
    browser.wait_for("#confirm-text", "judges all requests").await;
    browser.picture("trial-question-phone-dark").await;
    if let Some(axe) = &axe {
        let found = browser.run_async(axe, AXE).await;
        assert_eq!(found.as_array().map(Vec::len), Some(0), "{found:#}");
    }
}

/// What is serious of what axe finds: the rule, and the elements.
const AXE: &str = "axe.run(document).then(found => done(found.violations.filter(({ impact }) => impact == 'serious' || impact == \
                   'critical').map(({ id, nodes }) => ({ id, nodes: nodes.map(node => [node.target.join(' '), node.failureSummary]) }))))";

/// The script of axe-core, if it is here.
fn axe() -> Option<String> {
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/axe/node_modules/axe-core/axe.min.js");
    let path = std::env::var_os("WAF_AXE").unwrap_or_else(|| installed.into());
    std::fs::read_to_string(path).ok()
}
