//! Bad bots: tools that look for weaknesses, by the names that they give themselves.

use crate::catalogue::Rule;
use crate::cut;
use crate::view::{Hits, View};
use crate::words::{List, words};

static TOOLS: &List = &List::of(words!(
    "absinthe acunetix appscan arachni brutus bsqlbf burpcollaborator burpsuite cgichk commix crackmapexec crowbar
     dalfox detectify dirb dirbuster dirsearch dotdotpwn evilscanner feroxbuster ffuf fimap gobuster grabber
     grendel-scan havij hydra inspathx invicti jaeles jbrofuzz joomscan jorgee l9explore l9tcpid lfisuite libwhisker
     masscan medusa metasploit metis morfeus mysqloit n-stealth nessus netsparker nikto nmap nosqlmap nsauditor
     nuclei openvas padbuster pangolin paros pmafind rapid7 rustbuster sipvicious skipfish sqlbrute sqlmap sqlninja
     sqlpowerinjector sqlsus struts-pwn sundayddr sysscan tplmap uil2pn vega/ w3af wapiti webbandit webinspect
     webshag wfuzz whatweb whcc/ wprecon wpscan xsser xsstrike zap/ zeus-scanner zgrab zmeu"
));

/// Headers that a tool adds to say who it is.
static HEADERS: &[&str] =
    &["acunetix-", "x-burp", "x-ratproxy", "x-scan-memo", "x-scanner", "x-sqlmap", "x-wipp", "x-zap-"];

/// Files that a tool asks for to see whether it is being lied to.
static PATHS: &[&str] =
    &["/rfiinc.txt", "acunetix-wvs", "appscan_fingerprint", "muieblackcat", "nessustest", "netsparker-", "w00tw00t"];

pub(crate) fn user_agent(view: &View<'_>, hits: &mut Hits) {
    for (at, tool) in view.find_any(TOOLS, view.lower) {
        let end = at + tool.len();
        if tool.ends_with('/') || !cut::from(view.lower, end).starts_with(|c: char| c.is_ascii_alphabetic()) {
            hits.add(Rule::BotTool, cut::between(view.text, at, end));
        }
    }
}

pub(crate) fn header(view: &View<'_>, hits: &mut Hits) {
    if HEADERS.iter().any(|header| view.name.starts_with(header)) {
        hits.add(Rule::BotProbe, view.name);
    }
}

pub(crate) fn path(view: &View<'_>, hits: &mut Hits) {
    if let Some(path) = PATHS.iter().find(|path| view.lower.contains(**path)) {
        hits.add(Rule::BotProbe, path);
    }
}
