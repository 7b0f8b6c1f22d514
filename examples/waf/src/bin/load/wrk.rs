//! Runs wrk, and reads what it prints.

use std::net::SocketAddr;
use std::process::Command;

use hotslot::BoxError;

pub struct Result {
    pub requests: u64,
    /// Not answered, or not with 2xx.
    pub failed: u64,
    pub per_second: f64,
    /// In milliseconds.
    pub p50: f64,
    pub p99: f64,
}

pub fn run(address: SocketAddr, connections: u32, seconds: u64) -> std::result::Result<Result, BoxError> {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--latency"])
        .args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")])
        .arg(format!("http://{address}/products?category=garden&page=2"))
        .output()
        .map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    read(&text).ok_or_else(|| format!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr)).into())
}

fn read(text: &str) -> Option<Result> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok())?;
    let sockets: u64 = after("Socket errors:")
        .map_or(0, |errors| errors.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum());
    let refused = after("Non-2xx or 3xx responses:").and_then(|count| count.parse().ok()).unwrap_or(0);
    Some(Result {
        requests,
        failed: sockets + refused,
        per_second: after("Requests/sec:")?.parse().ok()?,
        p50: millis(after("50%")?)?,
        p99: millis(after("99%")?)?,
    })
}

fn millis(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse::<f64>().ok().map(|number| number * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::read;

    const TEXT: &str = "  2 threads and 32 connections
  Latency Distribution
     50%  652.00us
     75%    1.01ms
     99%    1.20s
  123 requests in 2.00s, 1.00MB read
  Socket errors: connect 0, read 12, write 3, timeout 0
  Non-2xx or 3xx responses: 5
Requests/sec:  61234.50
";

    #[test]
    fn what_wrk_prints_is_understood() {
        let result = read(TEXT).unwrap();
        assert_eq!((result.requests, result.failed), (123, 20));
        assert_eq!((result.p50, result.p99, result.per_second), (0.652, 1200.0, 61234.5));
    }
}
