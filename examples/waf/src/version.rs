//! How a version is shown to people: `v2`, `v2.1`, `v2.1.3`. Machines get all of it.

/// Writes a version without the zeros at its end.
pub fn shown(version: &str) -> String {
    let is_plain = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut short = version;
    while let Some(rest) = short.strip_suffix(".0").filter(|_| is_plain) {
        short = rest;
    }
    format!("v{short}")
}

#[cfg(test)]
#[test]
fn zeros_at_the_end_are_left_out() {
    for (version, expected) in
        [("1.0.0", "v1"), ("1.10.0", "v1.10"), ("0.9.0", "v0.9"), ("2.0.1", "v2.0.1"), ("2.0.0-rc.0", "v2.0.0-rc.0")]
    {
        assert_eq!(shown(version), expected);
    }
}
