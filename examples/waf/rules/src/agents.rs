//! Bad bots: tools that look for weaknesses, by the names that they give themselves.

use crate::catalogue::Rule;
use crate::view::{Hits, View, is_word, occurrences};

const TOOLS: &[&str] = &[
    "absinthe", "acunetix", "appscan", "arachni", "brutus", "bsqlbf", "burpcollaborator", "burpsuite", "cgichk",
    "commix", "crackmapexec", "crowbar", "dalfox", "detectify", "dirb", "dirbuster", "dirsearch", "dotdotpwn",
    "evilscanner", "feroxbuster", "ffuf", "fimap", "fuzz faster u fool", "gobuster", "grabber", "grendel-scan",
    "havij", "hydra", "inspathx", "internet ninja", "invicti", "jaeles", "jbrofuzz", "joomscan", "jorgee",
    "l9explore", "l9tcpid", "lfisuite", "libwhisker", "masscan", "medusa", "metasploit", "metis", "morfeus",
    "mysqloit", "n-stealth", "nessus", "netsparker", "nikto", "nmap", "nosqlmap", "nsauditor", "nuclei", "openvas",
    "owasp zap", "padbuster", "pangolin", "paros", "pmafind", "prtg scanner", "qualys was", "rapid7", "rustbuster",
    "sipvicious", "skipfish", "sqlbrute", "sqlmap", "sqlninja", "sqlpowerinjector", "sqlsus", "struts-pwn",
    "sundayddr", "sysscan", "tplmap", "uil2pn", "vega/", "w3af", "wapiti", "webbandit", "webinspect", "webshag",
    "webtrends security analyzer", "wfuzz", "whatweb", "whcc/", "wordpress hash grabber", "wprecon", "wpscan",
    "xsser", "xsstrike", "zap/", "zeus-scanner", "zgrab", "zmeu",
];

/// Headers that a tool adds to say who it is.
const HEADERS: &[&str] = &[
    "acunetix-", "x-burp", "x-ratproxy", "x-scan-memo", "x-scanner", "x-sqlmap", "x-wipp", "x-zap-",
];

/// Files that a tool asks for to see whether it is being lied to.
const PATHS: &[&str] = &[
    "/rfiinc.txt", "acunetix-wvs", "appscan_fingerprint", "muieblackcat", "nessustest", "netsparker-", "w00tw00t",
];

pub(crate) fn user_agent(view: &View<'_>, hits: &mut Hits) {
    for tool in TOOLS {
        let alone = |(_, before, after): &(usize, Option<u8>, Option<u8>)| {
            let open = tool.ends_with('/') || !after.is_some_and(|byte| byte.is_ascii_alphabetic());
            open && !before.is_some_and(is_word)
        };
        if let Some((at, ..)) = occurrences(view.lower, tool).find(alone) {
            hits.add(Rule::BotTool, &view.text[at..at + tool.len()]);
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
