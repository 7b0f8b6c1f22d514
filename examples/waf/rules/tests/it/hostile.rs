//! Whatever is sent, the answer is a verdict: no panic, and no more text in the reason than it may quote.

use crate::support::{Sent, inspect};
use proptest::prelude::*;
use universal_waf::{Reason, Rules};

/// Pieces of attacks and of encodings; strung together they reach deeper than random bytes do.
const PIECES: &[&str] = &[
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

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        9 => proptest::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

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
