//! Whatever is sent, the answer is a verdict: no panic, and no more text in the reason than it may quote.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::support::{Sent, inspect};
use proptest::prelude::*;
use universal_waf::{Decision, Reason, Rules};

/// Pieces of attacks and of encodings; strung together they reach deeper than random bytes do.
pub(crate) const PIECES: &[&str] = &[
    "'",
    "\"",
    "`",
    "--",
    "#",
    "/*",
    "*/",
    "/*!",
    ";",
    "|",
    "&",
    "&&",
    "$(",
    "${",
    "((",
    "))",
    "[",
    "]",
    "{",
    "}",
    "{{",
    "}}",
    "<",
    ">",
    "</",
    "<!",
    "<?",
    "%",
    "%25",
    "%u",
    "%c0",
    "\\",
    "\\u",
    "\\x",
    "&#",
    "&#x",
    "&lt",
    ";",
    "=",
    "==",
    "::",
    "->>",
    "@>",
    "@@",
    ".",
    "..",
    "../",
    "/etc",
    "bin/",
    "..;/",
    " ",
    "\n",
    "\t",
    "\0",
    "é",
    "\u{ff1c}",
    "½",
    "¼",
    "or",
    "and",
    "union",
    "select",
    "from",
    "where",
    "like",
    "if",
    "for",
    "in",
    "do",
    "on",
    "onload",
    "script",
    "style",
    "svg",
    "javascript:",
    "data:",
    "url(",
    "alias",
    "sleep",
    "cat",
    "sh",
    "-c",
    "1",
    "0x",
    "1.e",
    "a",
    "A",
    "null",
    "document.",
    "cookie",
    "self",
    "Get-",
    "Item",
    "~+",
    "() {",
    "O:1:\"",
    "boundary",
    "name=",
    "filename=",
    "<![CDATA[",
    "<!--",
    "--xyz",
    "\r\n\r\n",
];

/// Characters of two to four bytes: white space, what has no width, a mark that joins the letter before it, an emoji. Only
/// some of them are folded before the rules look.
const WIDE: &[char] = &['\u{85}', '\u{a0}', '¼', '\u{301}', '\u{2003}', '\u{200b}', '\u{2028}', '\u{ff1c}', '😀'];

/// What the rules look for and cut text at, beside the pieces above.
pub(crate) const MARKS: &[&str] = &[
    "/bin/cat",
    "usr/bin/perl",
    "/sbin/",
    "/e?c/p*",
    "cat /etc/passwd",
    "cmd=$(",
    "$IFS",
    "${IFS}",
    "$@",
    "x$a",
    "$[1",
    "<(id",
    "$(id)",
    "{cat,/x}",
    "alias a=b",
    "~1",
    "sleep 5",
    "sudo id",
    "a=b id",
    "() { :",
    "`id`",
    "o:1:\"",
    "O:+1:\"",
    "<%= 1*1 %>",
    "{{1*1}}",
    "${jndi:",
    "exec('",
    "assert(",
    "rO0AB",
    "/*!1",
    "a/**/b",
    "1.e(",
    "0x1",
    "@@version",
    "[a]",
    "'or'1'='1",
    "'x'='y",
    "like '%",
    "-- ",
    "::int",
    "$ne",
    "x[$gt]",
    "create table a(",
    "DROP TABLE a;",
    "; select 1",
    "order by 1",
    "<script>",
    "¼script¾",
    "<svg/onload=1",
    "\" onload=1",
    "on",
    "onerror\u{1f}=1",
    "javascript:",
    "JavaScript: the",
    "data:text/html,",
    "style=url(javascript",
    "/* */",
    "// x",
    "document.cookie",
    "self['a",
    "top [`",
    "alert(1)",
    "fetch('",
    "new function(",
    "Function ('",
    "[]+![]+[]!+",
    "eval.call",
    "innerhtml=",
    "<!doctype system",
    "<?import",
    "< s c r i p t",
    "x.exe /c",
    "net user",
    "for %a in (x) do y",
    "if exist a del",
    "if errorlevel 1",
    "IF /i not a==b",
    "if a equ b",
    "Get-Item",
    "iex('",
    "../../",
    "..;/",
    "0x2e0x2e/",
    "/./",
    "//",
    "file:///",
    ".git/",
    "etc/shadow",
    ".php",
    "x.bak",
    "sqlmap",
    "nmap/",
    "name=\"",
    "%e2%80%a8",
    "&#x2028;",
    "\\u2028",
    "&nbsp;",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        7 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        2 => proptest::sample::select(MARKS).prop_map(|mark| mark.as_bytes().to_vec()),
        1 => proptest::sample::select(WIDE).prop_map(|wide| wide.to_string().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What the rules say of a value, wherever in a request it may stand.
fn everywhere(waf: &Rules, value: &str) -> [Decision; 2] {
    let quoted = serde_json::to_string(&value).unwrap();
    let json = format!("{{{quoted}:{quoted},\"cmd\":{quoted}}}");
    let headers =
        [("Content-Type", "application/json"), ("User-Agent", value), ("X-Filename", value), ("X-Any", value)];
    let file = [("Content-Type", "multipart/form-data; boundary=xyz"), ("Cookie", value)];
    let section =
        format!("--xyz\nContent-Disposition: form-data; name={value}; filename=\"{value}\"\n\n{value}\n--xyz--");
    [
        inspect(waf, &Sent { target: value, headers: &headers, body: json.as_bytes() }),
        inspect(waf, &Sent { target: "/", headers: &file, body: section.as_bytes() }),
    ]
}

/// Text is cut only where a character begins, whichever character that is and wherever the rules cut.
#[test]
fn characters_of_many_bytes_beside_what_the_rules_look_for_get_a_verdict() {
    let waf = Rules::default();
    let mut broken = Vec::new();
    let mut check = |value: String| {
        if catch_unwind(AssertUnwindSafe(|| everywhere(&waf, &value))).is_err() {
            broken.push(value);
        }
    };
    for mark in PIECES.iter().chain(MARKS) {
        for wide in WIDE {
            check(format!("a{wide}{mark}{wide}b"));
            check(format!("{mark}{wide}{mark}"));
            check(format!("{wide} {mark}={wide}"));
        }
        // Some rules look so many bytes far and no further: each offset inside of a character comes to lie there.
        for wide in ['\u{a0}', '\u{2028}', '😀'] {
            let far = wide.to_string().repeat(55);
            for shift in ["", "a", "aa", "aaa"].iter().take(wide.len_utf8()) {
                check(format!("{shift}{far}{mark}{shift}{far}"));
            }
        }
    }
    let shortest = broken.iter().min_by_key(|value| value.len());
    assert!(broken.is_empty(), "{} values, of which the shortest is {shortest:?}", broken.len());
}

proptest! {
    // More of them if PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn any_request_gets_a_verdict(
        target in text(),
        header in text(),
        body in text(),
        kind in proptest::sample::select(&[
            "", "application/json", "text/xml", "text/plain", "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=xyz", "application/octet-stream",
        ]),
    ) {
        let target = String::from_utf8_lossy(&target);
        let header = String::from_utf8_lossy(&header);
        let headers = [("Content-Type", kind), ("Cookie", &header), ("User-Agent", &header), ("X-Filename", &header)];
        let decision = inspect(&Rules::default(), &Sent { target: &target, headers: &headers, body: &body });
        if let Some(reason) = decision.reason {
            prop_assert!(reason.part.chars().count() <= Reason::LONGEST_MATCH);
            prop_assert!(reason.matched.chars().count() <= Reason::LONGEST_MATCH);
        }
    }
}
