//! An interface may use whatever names its author likes: those of the macro's own code are not in their way.

use hotslot_plugin::{harness, interface};

mod codec {
    #[derive(Clone, Copy, hotslot_plugin::Plain)]
    pub(crate) struct Frame(pub(crate) u32);
}
mod contract {
    pub(crate) use crate::codec::Frame as Part;
}
mod plugin {
    pub(crate) use crate::codec::Frame as Link;
}

#[derive(Clone, Copy, hotslot_plugin::Plain)]
struct L {
    /// A module that the derive's code has, too.
    part: contract::Part,
}

#[interface(version = "1.1")]
trait Names {
    fn parameters(&self, arguments: u32, answer: &str, lent: u64, words: &[u8], held_0: u8, method: L) -> String;

    fn modules(&self, frame: codec::Frame, part: contract::Part, link: plugin::Link) -> u32;

    #[since("1.1")]
    fn later(&self, error: u32, answer: u32) -> u32 {
        error + answer
    }

    fn dispatch(&self, value: u32) -> u32;

    fn link(&self, number: u32) -> u32;
}

#[derive(Default)]
struct Plugin;

impl Names for Plugin {
    fn parameters(&self, arguments: u32, answer: &str, lent: u64, words: &[u8], held_0: u8, method: L) -> String {
        format!("{arguments} {answer} {lent} {words:?} {held_0} {}", method.part.0)
    }

    fn modules(&self, frame: codec::Frame, part: contract::Part, link: plugin::Link) -> u32 {
        frame.0 + part.0 + link.0
    }

    fn dispatch(&self, value: u32) -> u32 {
        value + 1
    }

    fn link(&self, number: u32) -> u32 {
        number + 2
    }
}

#[test]
fn names_of_the_authors_choice_are_not_mixed_up_with_those_of_the_macro() {
    let plugin = harness!(Plugin as Names).start().unwrap();
    let l = L { part: codec::Frame(6) };
    assert_eq!(plugin.parameters(1, "2", 3, &[4], 5, l), "1 2 3 [4] 5 6");
    assert_eq!(plugin.modules(codec::Frame(1), codec::Frame(2), codec::Frame(3)), 6);
    assert_eq!(plugin.later(1, 2), 3);
    assert_eq!(plugin.dispatch(1), 2);
    assert_eq!(plugin.link(1), 3);
}

/// Types that a macro passes on come in groups, which are not to be seen.
macro_rules! passed_on {
    ($version:literal, $lent:ty, $owned:ty, $result:ty) => {
        #[interface(version = $version)]
        trait PassedOn {
            fn passed(&self, lent: $lent, owned: $owned) -> $result;
        }
    };
}

passed_on!("1.0", &str, Vec<u8>, Result<String, hotslot_plugin::CallError>);

#[test]
fn types_that_a_macro_passes_on_are_those_that_they_are() {
    let contract = <dyn PassedOn as hotslot_plugin::Interface>::CONTRACT;
    assert_eq!(contract, "interface passed-on 1.0\nmethod passed(&str,Vec<u8>)->Result<String,CallError>\n");
}
