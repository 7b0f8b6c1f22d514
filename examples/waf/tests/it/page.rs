//! The page, used as a person would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::support::browser::Browser;
use crate::support::node::{Folder, replace};
use crate::support::{Module, Node, TOKEN};

#[tokio::test]
async fn a_module_is_uploaded_and_rolled_back_on_the_page() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let node = Arc::new(Node::start(&Module::new("1.0.0")));
    let path = node.folder.path("new.wasm");
    std::fs::write(&path, Module::new("1.1.0").bytes()).unwrap();
    let bad = node.folder.path("bad.wasm");
    std::fs::write(&bad, b"no module").unwrap();

    // Traffic, for there to be something on the plot.
    let (done, theirs) = (Arc::new(AtomicBool::new(false)), Arc::clone(&node));
    let stop = Arc::clone(&done);
    let traffic = tokio::spawn(async move {
        for request in 0.. {
            if stop.load(Relaxed) {
                return;
            }
            theirs.get(["/", "/?do=b", "/", "/?do=l", "/"][request % 5]).await;
        }
    });

    browser.open(&format!("http://{}/", node.admin)).await;
    browser.wait_for("#version", "v1").await;
    browser.wait_for("#rules", "test-rule").await;
    browser.picture("1-before").await;

    browser.type_into("#file", bad.to_str().unwrap()).await;
    browser.click("#reload").await;
    browser.wait_for("#note", "needs the token").await;
    browser.type_into("#token", TOKEN).await;
    browser.click("#reload").await;
    browser.wait_for("#note", "nor a WebAssembly module").await;
    browser.wait_for("#history", "admit").await;
    assert_eq!(browser.text("#version").await, "v1");

    browser.type_into("#file", path.to_str().unwrap()).await;
    browser.click("#reload").await;
    browser.picture("2-reloading").await;
    browser.wait_for("#version", "v1.1").await;
    browser.wait_for("#note", "version v1.1").await;
    browser.wait_for("#previous", "v1").await;
    browser.picture("3-reloaded").await;

    browser.click("#history button").await;
    browser.wait_for("#version", "v1").await;
    browser.wait_for("#note", "Rolled back to version v1:").await;
    browser.wait_for("#history", "rollback").await;
    browser.picture("4-rolled-back").await;

    let fetched = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)").await;
    let own = format!("http://{}/", node.admin);
    let elsewhere: Vec<_> =
        fetched.as_array().unwrap().iter().filter_map(Value::as_str).filter(|name| !name.starts_with(&own)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    done.store(true, Relaxed);
    traffic.await.unwrap();
}

#[tokio::test]
async fn each_module_is_shown_replaced_and_rolled_back_on_the_page() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let mut folder = Folder::new(&Module::new("1.0.0"), "");
    let second = folder.path("bad-bot-blocker.wasm");
    replace(&second, &Module::new("2.0.0").bytes());
    folder.configure(&format!("[[waf.wasm.modules]]\nfile = {second:?}"));
    let node = folder.start();
    let path = node.folder.path("new.wasm");
    std::fs::write(&path, Module::new("2.1.0").bytes()).unwrap();
    browser.open(&format!("http://{}/", node.admin)).await;
    browser.type_into("#token", TOKEN).await;
    // The first one is shown, and both are listed.
    browser.wait_for("#modules", "universal-wafv1").await;
    browser.wait_for("#modules", "bad-bot-blockerv2").await;
    browser.wait_for("#version", "v1").await;
    browser.click("#modules tr:nth-child(2) button").await;
    browser.wait_for("#name", "bad-bot-blocker").await;
    browser.wait_for("#version", "v2").await;
    browser.type_into("#file", path.to_str().unwrap()).await;
    browser.click("#reload").await;
    browser.wait_for("#version", "v2.1").await;
    browser.wait_for("#note", "Reloaded bad-bot-blocker").await;
    browser.wait_for("#history", "bad-bot-blocker").await;
    browser.picture("5-two-modules").await;
    browser.click("#rollback").await;
    browser.wait_for("#note", "Rolled back to version v2:").await;
    assert_eq!(node.version().await["version"], "1.0.0");
    assert_eq!(node.admin("/api/v1/wasm/version/bad-bot-blocker").await["version"], "2.0.0");
}
