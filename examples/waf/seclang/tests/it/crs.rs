use std::path::PathBuf;
#[test]
fn try_it() {
    let t = std::time::Instant::now();
    let paths: Vec<PathBuf> = std::env::var("PATHS").unwrap().split(' ').map(PathBuf::from).collect();
    let text = waf_rule_bundle::collect(&paths).unwrap();
    println!("{} bytes in {:?}", text.len(), t.elapsed());
    std::fs::write("/tmp/bundle.conf", &text).unwrap();
    let t = std::time::Instant::now();
    match seclang_waf::Rules::parse(text.as_bytes()) {
        Ok(rules) => { println!("{} rules in {:?}", rules.count(), t.elapsed()); for w in rules.weaknesses() { println!("weak {w}") } }
        Err(seclang_waf::ConfigError::Unsupported(all)) => { for u in &all { println!("{u}") } println!("{}", seclang_waf::ConfigError::Unsupported(all)) }
        Err(e) => println!("{e}"),
    }
    println!("{:?}", t.elapsed());
}
