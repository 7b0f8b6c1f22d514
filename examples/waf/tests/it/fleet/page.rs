//! The orchestrator's page, used as a person would.

use super::groups::in_two_regions;
use crate::support::browser::Browser;
use crate::support::fleet::{Fleet, canary};
use crate::support::{Module, TOKEN};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_watched_promoted_and_stopped_on_the_page() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let Some(fleet) = Fleet::start(3, canary(600_000)).await else { return };
    browser.open(&format!("http://{}/", fleet.orchestrator.address)).await;
    browser.wait_for("#link", "say the token").await;
    browser.type_into("#token", "a-token-that-nobody-has").await;
    browser.wait_for("#link", "needs a token").await;
    browser.run("document.getElementById('token').value = ''").await;
    browser.type_into("#token", TOKEN).await;
    browser.wait_for("#version", "1.0.0").await;
    browser.wait_for("#summary", "3 of 3 nodes").await;
    browser.picture("fleet-1-settled").await;

    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &[("wait", "0")]).await;
    assert!(answer.status.is_success(), "{}", answer.text());
    browser.wait_for("#waves .now", "wave 1").await;
    browser.wait_for("#nodes .target", "1.1.0").await;
    browser.wait_for("#steps", "serves the target").await;
    browser.picture("fleet-2-canary").await;
    browser.click("#promote").await;
    browser.wait_for("#about", "done").await;
    browser.wait_for("#version", "1.1.0").await;
    fleet.wait_for_version("1.1.0").await;
    browser.picture("fleet-3-done").await;

    browser.click("#stop").await;
    browser.wait_for("#summary", "stopped").await;
    browser.click("#resume").await;
    browser.wait_for("#note", "resume").await;
    browser.click("#rollback").await;
    browser.wait_for("#version", "1.0.0").await;
    fleet.wait_for_version("1.0.0").await;
    browser.picture("fleet-4-rolled-back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_shown_and_one_of_them_is_rolled_back_on_the_page() {
    let Some(browser) = Browser::start().await else {
        println!("skipped: there is no chromedriver here");
        return;
    };
    let Some(fleet) = in_two_regions().await else { return };
    browser.open(&format!("http://{}/", fleet.orchestrator.address)).await;
    browser.type_into("#token", TOKEN).await;
    browser.wait_for("#summary", "3 of 3 nodes").await;
    let eu = [("target", "label:region=eu"), ("wait", "240")];
    let answer = fleet.orchestrator.release(&Module::new("1.1.0").bytes(), &eu).await;
    assert_eq!(answer.json()["state"], "done", "{}", answer.text());
    browser.wait_for("#groups", "region=eu serves 1.1.0").await;
    browser.wait_for("#nodes", "region=eu (its group)").await;
    browser.wait_for("#about", "for label:region=eu").await;
    browser.wait_for("#version", "1.0.0").await;
    assert!(!browser.text("#summary").await.contains("different"), "nobody has drifted");
    browser.picture("fleet-5-groups").await;
    // The first choice is the group, and not everybody.
    browser.click("#rollback").await;
    browser.wait_for("#groups", "region=eu serves 1.0.0").await;
    fleet.wait_for_version("1.0.0").await;
}
