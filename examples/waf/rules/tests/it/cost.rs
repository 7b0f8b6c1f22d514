//! What a request costs: linear in its length wherever the bytes stand, and never more than the budget. Counted in
//! instructions of the module, so that a busy machine changes nothing.

use crate::hostile::{MARKS, PIECES};
use crate::metered::{Metered, compile};
use crate::support::Sent;
use universal_waf::{Config, Rules};
use waf_interface::Request;

/// No limit that a test of lengths comes to.
const UNLIMITED: &str =
    r#"{ "limits": { "parameters": 1000000000, "bytes": 1000000000, "work": 1000000000000000000 } }"#;

/// The most that a request may take, with the default limits. A core of 2.5 GHz does some ten of these instructions per
/// nanosecond when they are not counted, so that this is about the default deadline of 50 ms.
const MOST: u64 = 560_000_000;

/// The most instructions that a step stands for.
const STEP: u64 = 60;

/// Puts bytes into a request.
type Place = fn(&str) -> Vec<u8>;

fn post(kind: &str, body: &str) -> Vec<u8> {
    Sent { target: "/", headers: &[("Content-Type", kind)], body: body.as_bytes() }.written()
}

fn header(name: &str, value: &str) -> Vec<u8> {
    Sent { target: "/", headers: &[(name, value)], body: b"" }.written()
}

fn target(target: &str) -> Vec<u8> {
    Sent { target, headers: &[], body: b"" }.written()
}

const FORM: &str = "application/x-www-form-urlencoded";

fn multipart(head: &str, content: &str) -> Vec<u8> {
    let body = format!("--xyz\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n--xyz--\r\n");
    post("multipart/form-data; boundary=xyz", &body)
}

/// Every reader of a part of a request.
const PLACES: [(&str, Place); 22] = [
    ("path", |text| target(&format!("/{text}"))),
    ("query", |text| target(&format!("/?a={text}"))),
    ("name", |text| post(FORM, &format!("{text}=1"))),
    ("many names", |text| post(FORM, &text.replace('=', "&"))),
    ("header", |text| header("x-any", text)),
    ("user-agent", |text| header("user-agent", text)),
    ("credentials", |text| header("authorization", &format!("Basic {text}"))),
    ("brands", |text| header("sec-ch-ua", text)),
    ("cookie", |text| header("cookie", &format!("a={text}"))),
    ("file name", |text| header("x-filename", text)),
    ("content type", |text| header("content-type", &format!("multipart/form-data; {text}"))),
    ("json", |text| post("application/json", &format!("{{\"a\":\"{text}\"}}"))),
    ("json list", |text| post("application/json", &format!("[{text}]"))),
    ("xml", |text| post("text/xml", &format!("<a>{text}</a>"))),
    ("xml attribute", |text| post("text/xml", &format!("<a b='{text}'/>"))),
    ("part", |text| multipart("name=\"a\"", text)),
    ("part's head", |text| multipart(text, "1")),
    ("file", |text| multipart("name=\"a\"; filename=\"b\"", text)),
    ("text", |text| post("text/plain", text)),
    ("binary", |text| post("application/octet-stream", text)),
    ("message", |text| post("application/msgpack", &format!("\u{1}{text}"))),
    ("wide", |text| post("image/png", &text.chars().fold("{\0\"\0".to_owned(), |wide, c| wide + &format!("{c}\0")))),
];

fn fragments() -> impl Iterator<Item = &'static str> {
    PIECES.iter().chain(MARKS).copied()
}

fn repeated(fragment: &str, length: usize) -> String {
    fragment.repeat(length.div_ceil(fragment.len()))
}

#[test]
fn four_times_the_bytes_take_four_times_the_work() {
    const SHORT: usize = 3000;
    let module = compile();
    let mut rules = Metered::new(&module, UNLIMITED);
    println!("{:15} {:>12} {:>7}  dearest fragment", "place", "instr./byte", "growth");
    let mut steep = Vec::new();
    for (name, place) in PLACES {
        let (mut dearest, mut steepest) = ((0, ""), 0.0_f64);
        for fragment in fragments() {
            let [short, long] =
                [SHORT, 4 * SHORT].map(|length| rules.instructions(&place(&repeated(fragment, length))));
            let growth = long as f64 / short as f64;
            dearest = dearest.max((long / (4 * SHORT as u64), fragment));
            steepest = steepest.max(growth);
            if growth > 5.0 {
                steep.push((name, fragment, short, long));
            }
        }
        println!("{name:15} {:>12} {steepest:>7.2}  {:?}", dearest.0, dearest.1);
    }
    assert!(steep.is_empty(), "{steep:#?}");
}

/// What one scan finds, another one may look at for each place where the first one finds something.
#[test]
fn fragments_beside_each_other_are_no_dearer() {
    const SHORT: usize = 3000;
    let module = compile();
    let mut rules = Metered::new(&module, UNLIMITED);
    let all: Vec<&str> = fragments().collect();
    let mut steep = Vec::new();
    for (index, fragment) in all.iter().enumerate() {
        let other = all[(index * 7 + 3) % all.len()];
        let shapes: [&dyn Fn(usize) -> String; 3] = [
            &|length| repeated(&format!("{fragment}{other} "), length),
            &|length| repeated("junk ", length / 2) + &repeated(fragment, length / 2),
            &|length| repeated(fragment, length) + "<'\"`%$ x",
        ];
        for shape in shapes {
            let form = |length| {
                let value: String = shape(length).bytes().map(|byte| format!("%{byte:02x}")).collect();
                post(FORM, &format!("a={value}"))
            };
            let [short, long] = [SHORT, 4 * SHORT].map(|length| rules.instructions(&form(length)));
            if long > 5 * short {
                steep.push((fragment, other, short, long));
            }
        }
    }
    assert!(steep.is_empty(), "{steep:#?}");
}

/// Ordinary bodies of the largest size that a host shows by default.
#[test]
fn what_people_send_is_looked_at_in_full() {
    let module = compile();
    let mut rules = Metered::new(&module, "{}");
    let prose = "The gardener's shop (in the old mill, beside the station) opens at 9:30; tea & cake is 4.50, \"scones\" are extra.\n\n";
    let json = repeated(
        r#"{"id":1234,"name":"Jane O'Neill","mail":"jane@example.com","tags":["a-b","c"],"url":"https://example.com/a/b?c=d#e","note":"see you at 5, or later; if you like"},"#,
        16 << 10,
    );
    let markdown = "# Title\n\nSome *text* with `code(x)` and a [link](https://example.com/a).\n\n- one\n- two\n\n    let x = y[1] + 2;\n";
    for (what, request) in [
        ("prose", post("text/plain", &repeated(prose, 64 << 10))),
        ("form", post(FORM, &repeated(&format!("field={}&", prose.replace('&', "%26").repeat(8)), 64 << 10))),
        ("json", post("application/json", &format!("[{json}{{}}]"))),
        ("markdown", post("text/plain", &repeated(markdown, 64 << 10))),
        ("words", post("text/plain", &repeated("lorem ipsum dolor sit amet ", 64 << 10))),
        (
            "base64",
            post("application/json", &format!("{{\"image\":\"{}\"}}", repeated("iVBORw0KGgoAAAANSUhEUg+/", 64 << 10))),
        ),
    ] {
        let (decision, steps) = Rules::default().measure(&Request::decode(&request).unwrap());
        let instructions = rules.instructions(&request);
        let rule = decision.reason.map(|reason| reason.rule);
        println!("{what:10} {:>5} kB {steps:>9} steps {instructions:>10} instructions {rule:?}", request.len() / 1000);
        assert!(rule.is_none_or(|rule| rule != "limits-work" && rule != "limits-exceeded"), "{what}");
    }
}

/// The budget is counted in steps: they have to be worth about the same, whatever they are made of.
#[test]
fn a_step_is_some_instructions() {
    let module = compile();
    let mut rules = Metered::new(&module, UNLIMITED);
    let native = Rules::new(&Config::parse(UNLIMITED.as_bytes()).unwrap()).unwrap();
    let mut cheap = Vec::new();
    for (name, place) in PLACES {
        for fragment in fragments() {
            let request = place(&repeated(fragment, 2000));
            let instructions = rules.instructions(&request);
            let (_, steps) = native.measure(&Request::decode(&request).unwrap());
            cheap.push((instructions / steps, instructions / 2000, name, fragment));
        }
    }
    cheap.sort_unstable_by(|a, b| b.cmp(a));
    println!("{:?}", &cheap[..10]);
    assert!(cheap[0].0 <= STEP, "{:?}", &cheap[..10]);
}

#[test]
fn no_request_takes_more_than_its_budget() {
    let module = compile();
    let rule = |kind: &str, pattern: &str| {
        format!(
            r#"{{ "id": "{kind}", "where": ["args", "body"], "kind": "{kind}", "pattern": "{pattern}", "action": "log" }}"#
        )
    };
    let dynamic = format!(
        r#"{{ "dynamic": [{}, {}] }}"#,
        rule("contains", "a"),
        rule("regex", "(a|b|ab){1,60}[^x]*(foo|[a-z]+)z")
    );
    for (file, patterns) in [("{}", false), (dynamic.as_str(), true)] {
        let mut rules = Metered::new(&module, file);
        let mut worst = (0, "");
        for fragment in fragments().chain(patterns.then_some("ab")) {
            for length in [64 << 10, 250 << 10, 512 << 10] {
                let value = repeated(fragment, length);
                for request in [post(FORM, &format!("a={value}")), post("text/plain", &value)] {
                    worst = worst.max((rules.instructions(&request), fragment));
                }
            }
        }
        println!("{worst:?}");
        assert!(worst.0 <= MOST, "{worst:?}");
    }
}
