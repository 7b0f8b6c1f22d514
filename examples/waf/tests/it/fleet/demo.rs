//! `waf fleet-demo`: comes up with one command, and goes down as one.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::fleet::nats_server;

fn demo(data: &Path, port: u16) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waf"));
    command.args(["fleet-demo", "--traffic", "1", "--port", &port.to_string(), "--data"]).arg(data);
    command.env_remove("WAF_ADMIN_TOKEN").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn complaint(mut child: Child) -> String {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!child.wait().unwrap().success());
    text
}

#[test]
fn the_demo_comes_up_says_which_ports_are_taken_and_goes_down_as_one() {
    if nats_server().is_none() {
        eprintln!("skipped: there is no nats-server in PATH or in target/servers: see ci/servers");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Eight ports, and below those that connections get: others of these tests make many.
    let (mut running, port, first) = (0..20)
        .find_map(|attempt| {
            let port = 20_000 + (std::process::id() % 8_000 + attempt * 16) as u16;
            let mut child = demo(&folder.path().join(attempt.to_string()), port);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            match lines.find(|line| line.starts_with("the first release:")) {
                Some(line) => Some((child, port, line)),
                None => {
                    let complaint = complaint(child);
                    assert!(complaint.contains("taken"), "{complaint}");
                    None
                }
            }
        })
        .expect("a demo");
    assert!(first.contains("\"state\":\"done\"") && first.contains("[\"node-1\",\"node-2\",\"node-3\"]"), "{first}");

    let complaint = complaint(demo(&folder.path().join("second"), port));
    for taken in [format!("{port}, for the orchestrator"), format!("{}, for NATS", port - 1), "--port".to_owned()] {
        assert!(complaint.contains(&taken), "{taken} in {complaint}");
    }

    assert!(Command::new("kill").arg(running.id().to_string()).status().unwrap().success());
    assert!(running.wait().unwrap().success());
    for port in [port - 1, port, port + 1, port + 2, port + 3, port + 1011] {
        TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|error| panic!("{port} is still taken: {error}"));
    }
}
