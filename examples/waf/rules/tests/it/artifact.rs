//! The module that is committed is the one that its source makes.

use crate::committed::{assert_is_small_and_names_no_machine, assert_is_what_the_source_makes};

#[test]
fn the_committed_module_is_what_the_source_makes() {
    assert_is_what_the_source_makes("universal-waf");
}

#[test]
fn the_committed_module_is_small_and_names_no_machine() {
    assert_is_small_and_names_no_machine(include_bytes!("../../universal-waf.wasm"), 520_000);
}
