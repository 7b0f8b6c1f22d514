//! Whether the machine has little else to do at the moment.

/// Returns whether at most a quarter of the cores have something to run, besides the thread that asks. `false` where that
/// cannot be told: only Linux says it.
pub(super) fn is_idle(cores: usize) -> bool {
    std::fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| running(&text))
        .is_some_and(|running| running.saturating_sub(1) <= cores / 4)
}

/// The number of threads that run or could, of `0.20 0.18 0.12 1/80 11206`.
fn running(loadavg: &str) -> Option<usize> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::running;

    #[test]
    fn the_count_is_found() {
        assert_eq!(running("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!([running(""), running("0.20 0.18 0.12"), running("0.20 0.18 0.12 x/80 1")], [None; 3]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_it() {
        assert!(running(&std::fs::read_to_string("/proc/loadavg").unwrap()).is_some_and(|running| running >= 1));
    }
}
