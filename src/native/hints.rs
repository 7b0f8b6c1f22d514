//! What to do about a library that the loader refused: the loader says what is missing, and not who should provide it.

use super::image::Facts;
use super::static_tls;
use crate::escape_untrusted;

/// Returns what to do about the loader's refusal of an image, to be put behind the reason; empty if nothing is known.
pub(super) fn of(reason: &str, facts: Option<&Facts>) -> String {
    if reason.contains("undefined symbol") {
        let symbol = reason.split_once("undefined symbol: ").map_or("", |(_, rest)| rest);
        let symbol = symbol.split([',', ' ', '\n', '(']).next().unwrap_or_default();
        format!(". {}{}", undefined(symbol), libraries(facts))
    } else if reason.contains("static TLS block") {
        format!(
            ". The loader's fixed reserve for thread-local storage is used up, and does not come back while libraries stay \
             mapped: {}",
            static_tls::REMEDY
        )
    } else if reason.contains("version `") && reason.contains("not found") {
        ". It was linked with a newer library than this process has: build it on a system that is as old as the oldest one \
         that it is to run on"
            .to_owned()
    } else if reason.contains("cannot open shared object file") || reason.contains("No such file") {
        format!(". A library that it needs is not where the loader looks{}", search_path(facts))
    } else if reason.contains("failed to map segment") {
        ". Code must not be mapped from there: choose a folder where it may, with private_folder".to_owned()
    } else if reason.contains("CPU ISA level") {
        ". It was compiled for another processor than this one: compile it, and what it needs, without -march"
            .to_owned()
    } else if reason.contains("executable stack") {
        ". Link it with -Wl,-z,noexecstack".to_owned()
    } else {
        String::new()
    }
}

/// Says who should define a symbol.
fn undefined(symbol: &str) -> String {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| symbol.starts_with(prefix));
    if starts(&["__asan_", "__ubsan_", "__tsan_", "__msan_", "__hwasan_", "__sanitizer_", "__lsan_"]) {
        return "The plugin was built with a sanitizer, whose runtime is part of the program: build the host with the same \
                -fsanitize, or link the plugin without it"
            .to_owned();
    }
    if starts(&["__gcov_", "__llvm_profile_", "__cyg_profile_"]) {
        return "The plugin was built for profiling or coverage: link it with the same flag (--coverage, \
                -fprofile-instr-generate), or build it without it"
            .to_owned();
    }
    if is_cpp_runtime(symbol) {
        return "It is part of the C++ runtime: link the plugin with g++ or clang++, or name the runtime (-lstdc++; in a \
                build script, cargo:rustc-link-lib=stdc++)"
            .to_owned();
    }
    if symbol.starts_with("_R") || is_legacy_rust(symbol) {
        return "It is Rust code that is not in the plugin: build it as a cdylib, which contains all that it uses, not as \
                a dylib"
            .to_owned();
    }
    if hidden_in_host(symbol) {
        return "The program itself has it, and does not export it: link the host with -rdynamic (for rustc: -C \
                link-arg=-rdynamic), or better, pass it to the plugin as a function pointer"
            .to_owned();
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Some(library) = super::linkmap::definer(symbol) {
        return format!(
            "{library}, which is mapped, defines it, but the plugin does not name that library: link the plugin with it (-l)"
        );
    }
    if symbol.starts_with("_Z") {
        return "It is C++ code that neither the plugin nor the libraries that it names define: link the object or the \
                library that does into the plugin"
            .to_owned();
    }
    "Neither the plugin, nor the libraries that it names, nor the program's own exports define it: link what does into the \
     plugin; only if the host is meant to provide it, define it there and link the host with -rdynamic"
        .to_owned()
}

fn is_cpp_runtime(symbol: &str) -> bool {
    let runtime = [
        "__cxa_",
        "__gxx_",
        "_ZSt",
        "_ZNSt",
        "_ZNKSt",
        "_ZTISt",
        "_ZTVSt",
        "_ZTVN10__cxxabiv1",
        "_Znw",
        "_Zna",
        "_Zdl",
        "_Zda",
        "_ZN9__gnu_cxx",
    ];
    runtime.iter().any(|prefix| symbol.starts_with(prefix))
}

/// `_ZN…17h<16 hexadecimal digits>E`
fn is_legacy_rust(symbol: &str) -> bool {
    let hash =
        symbol.strip_prefix("_ZN").and_then(|rest| rest.strip_suffix('E')).and_then(|rest| rest.rsplit_once("17h"));
    hash.is_some_and(|(_, hash)| hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether the program's own symbol table has a function or variable of this name that a plugin cannot bind to.
#[cfg(target_os = "linux")]
fn hidden_in_host(symbol: &str) -> bool {
    use object::{Object, ObjectSymbol};
    let Ok(program) = std::fs::read("/proc/self/exe") else { return false };
    let Ok(file) = object::File::parse(&*program) else { return false };
    !symbol.is_empty() && file.symbols().any(|it| it.is_definition() && it.name_bytes() == Ok(symbol.as_bytes()))
}

#[cfg(not(target_os = "linux"))]
fn hidden_in_host(_: &str) -> bool {
    false
}

/// Lists the libraries that the plugin names.
fn libraries(facts: Option<&Facts>) -> String {
    match facts.map(|facts| &facts.needed[..]) {
        None => String::new(),
        Some([]) => ". The plugin names no libraries".to_owned(),
        Some(names) => format!(". The plugin names {}", list(names)),
    }
}

/// Names the folders that a plugin cannot have relative to itself.
fn search_path(facts: Option<&Facts>) -> String {
    let Some(facts) = facts else { return String::new() };
    let relative: Vec<String> = facts.search_path.iter().filter(|folder| folder.contains('$')).cloned().collect();
    if relative.is_empty() {
        return ": put it into a folder that the loader knows, or link the plugin with -Wl,-rpath,/its/folder"
            .to_owned();
    }
    format!(
        ": the plugin is loaded from a private place, so its search path {} leads nowhere. Link it with an absolute path \
         (-Wl,-rpath,/its/folder), put the library where the system looks, or load it in the host first",
        list(&relative)
    )
}

fn list(names: &[String]) -> String {
    escape_untrusted(&names.join(", ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(symbol: &str) -> String {
        of(&format!("the plugin: undefined symbol: {symbol}"), None)
    }

    #[test]
    fn every_kind_of_symbol_says_who_provides_it() {
        for (symbol, words) in [
            ("_ZNSt8ios_base4InitC1Ev", "C++ runtime"),
            ("__gxx_personality_v0", "C++ runtime"),
            ("_ZTVN10__cxxabiv117__class_type_infoE", "C++ runtime"),
            ("__asan_report_load4", "sanitizer"),
            ("_RNvC6mycrate3foo", "cdylib"),
            ("_ZN7mycrate3foo17h0123456789abcdefE", "cdylib"),
            ("_ZN3Foo3barEv", "C++ code"),
            ("nobody_has_this_at_all", "link what does into the plugin"),
        ] {
            assert!(hint(symbol).contains(words), "{symbol}: {}", hint(symbol));
        }
    }

    #[test]
    fn a_search_path_relative_to_the_plugin_is_named() {
        let facts = Facts { search_path: vec!["$ORIGIN/../lib".to_owned()], ..Facts::default() };
        let text = of("libcore.so: cannot open shared object file: No such file or directory", Some(&facts));
        assert!(text.contains("$ORIGIN/../lib leads nowhere") && text.contains("-rpath"), "{text}");
    }
}
