//! The plugin. Change a greeting, build, and the running host uses the new one.

use {{crate}}_interface::{Greeter, Tone};

#[derive(Default)]
struct Plugin;

impl Greeter for Plugin {
    fn greet(&self, name: &str, tone: Tone) -> String {
        match tone {
            Tone::Warm => format!("Hello, {name}!"),
            Tone::Dry => format!("{name}."),
        }
    }
}

hotslot_plugin::export!(Plugin as Greeter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_in_the_tone_that_is_asked_for() {
        let plugin = hotslot_plugin::harness!(Plugin as Greeter).start().expect("the plugin starts");
        assert_eq!(plugin.greet("Ada", Tone::Warm), "Hello, Ada!");
        assert_eq!(plugin.greet("Ada", Tone::Dry), "Ada.");
    }
}
