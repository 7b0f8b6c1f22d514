//! Writes the interfaces.

use std::fmt::Write;

const COUNTS: [u32; 4] = [1, 10, 100, 1_000];

fn main() -> std::io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(methods, values(\"1\", \"10\", \"100\", \"1000\"))");
    println!("cargo::rerun-if-changed=build.rs");
    let text = COUNTS.map(interface).concat();
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets it");
    std::fs::write(std::path::Path::new(&folder).join("methods.rs"), text)
}

/// An interface of so many methods, and a plugin of it.
fn interface(count: u32) -> String {
    let (mut declared, mut implemented) = (String::new(), String::new());
    for number in 0..count {
        let signature = format!("fn method_{number}(&self, number: u64) -> u64");
        writeln!(declared, "    /// Adds {number}.\n    {signature};").expect("a text takes all");
        writeln!(implemented, "    {signature} {{ number.wrapping_add({number}) }}").expect("a text takes all");
    }
    format!(
        "/// An interface of {count} methods.\n\
         #[hotslot_plugin::interface(version = \"1.0\", name = \"methods-{count}\")]\n\
         pub trait Methods{count} {{\n{declared}}}\n\
         #[cfg(methods = \"{count}\")]\n\
         impl Methods{count} for Adder {{\n{implemented}}}\n\
         #[cfg(methods = \"{count}\")]\n\
         hotslot_plugin::export!(Adder as Methods{count});\n"
    )
}
