//! A host that compiles modules in children: `compiling SCENARIO GOOD BAD [setting=value]…`. It prints what happened.
//!
//! Settings: `memory`, `output` in bytes, `cpu` in seconds, `deadline`, `patience` in milliseconds, `children=ignored|reaped`,
//! `preinitialize`.

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use hotslot::wasm::{CompileError, CompileLimits, Engine, Func, ModuleLimits, WasmCallError, WasmPlugin};
use hotslot::{ErrorKind, HotSlot, Stage};

type Slot = HotSlot<WasmPlugin<Func<(), u32>>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A child has none.
    if arguments.is_empty() && std::env::var_os("HOTSLOT_TEST_LATE").is_some() {
        return Err("this program comes to its rehearsal point too late".into());
    }
    hotslot::rehearsal_point();

    let [scenario, good, bad, settings @ ..] = &arguments[..] else {
        return Err("see the source for its arguments".into());
    };
    let setting = |name: &str| settings.iter().find_map(|setting| setting.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str| setting(name).map(str::parse::<u64>).transpose();
    hotslot_tests::leave_no_children(setting("children"));
    // What a host does with signals, its children inherit.
    for signal in [libc::SIGXCPU, libc::SIGXFSZ] {
        // SAFETY: sets what the kernel does with signals that nothing here sends.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let default = CompileLimits::default();
    let limits = CompileLimits {
        // Only a test that sets a limit of time runs into it.
        deadline: number("deadline")?.map_or(Duration::from_secs(300), Duration::from_millis),
        cpu: number("cpu")?.map_or(Duration::from_secs(300), Duration::from_secs),
        memory: number("memory")?.unwrap_or(default.memory),
        output: number("output")?.unwrap_or(default.output),
    };
    let mut engine = Engine::builder().max_instances(12).compile_in_child(limits);
    if let Some(folder) = setting("cache") {
        engine = engine.cache_dir(folder);
    }
    if setting("on_demand").is_some() {
        engine = engine.on_demand();
    }
    let engine = engine.build()?;
    let backend = || {
        let bind = |binder: &mut hotslot::wasm::Binder<'_>| -> Result<_, WasmCallError> { binder.func("answer") };
        let backend = engine.bind(bind).module_limits(unlimited());
        if setting("preinitialize").is_some() { backend.preinitialize() } else { backend }
    };
    let patience = number("patience")?.map_or(Duration::from_secs(300), Duration::from_millis);
    let open = |bytes: &[u8]| HotSlot::builder(backend()).reload_timeout(patience).open(bytes);
    let (good, bad) = (std::fs::read(good)?, std::fs::read(bad)?);
    match &**scenario {
        "reload" => {
            let slot = open(&good)?;
            let before = peak_memory();
            report(slot.reload(&bad).map(drop));
            println!("the host's memory grew by {} MiB", (peak_memory() - before) >> 20);
            serving(&slot)?;
            let taken = engine.snapshots().iter().filter(|status| status.snapshot.is_ok()).count();
            println!("snapshots: {taken}");
        }
        // One slot is busy with the bad one, and the other goes on.
        "beside" => {
            let (slot, other) = (open(&good)?, open(&good)?);
            let (ended, end) = channel();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    report(slot.reload(&bad).map(drop));
                    ended.send(()).expect("the other side waits");
                });
                wait_until("a child compiles", || !children().is_empty());
                let mut version = good.clone();
                // A custom section makes other bytes of it.
                version.extend([0, 2, 1, b'x']);
                println!("other: {:?}", other.reload(version).map(|_| "swapped").map_err(|error| error.to_string()));
                println!("meanwhile: {}", if end.try_recv().is_err() { "the bad one compiled" } else { "nothing" });
                kill_children();
            });
            serving(&other)?;
        }
        // The slot gives the attempt up, and the child has to be gone.
        "abandoned" => {
            // From now on it is in memory, and opens in no time.
            let _compiled = HotSlot::builder(backend()).reload_timeout(Duration::from_secs(300)).open(&*good)?;
            let slot = open(&good)?;
            report(slot.reload(&*bad).map(drop));
            wait_until("no child is left", || children().is_empty());
            println!("no child is left");
            serving(&slot)?;
        }
        // What the host has open, and forgot to say that children are not to have.
        "descriptors" => {
            let slot = open(&good)?;
            // SAFETY: two descriptors of this function, which stay open.
            let copies = unsafe { [libc::dup(0), libc::dup(1)] };
            println!("the host has {copies:?}");
            std::thread::scope(|scope| {
                scope.spawn(|| report(slot.reload(&bad).map(drop)));
                wait_until("a child compiles", || {
                    children().iter().any(|child| {
                        let open: Vec<_> = std::fs::read_dir(format!("/proc/{child}/fd"))
                            .into_iter()
                            .flatten()
                            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
                            .collect();
                        open.len() >= 3 && !open.iter().any(|number| copies.contains(number))
                    })
                });
                println!("a child has none of them");
                kill_children();
            });
        }
        other => return Err(format!("{other} is no scenario").into()),
    }
    println!("compiled: {}", engine.status().compiled);
    println!("functions kept: {}", engine.status().function_memory);
    Ok(())
}

fn report(result: Result<(), hotslot::Error>) {
    match result {
        Ok(()) => println!("swapped"),
        Err(error) => {
            let source = match error.kind() {
                ErrorKind::Refused(reason) => reason.downcast_ref::<CompileError>(),
                _ => None,
            };
            println!("refused: {:?}: {error}: {source:?}", error.stage() == Stage::Load);
        }
    }
}

fn serving(slot: &Slot) -> Result<(), WasmCallError> {
    println!("serving: {}", slot.load().call(|answer, call| call.run(answer, ()))?);
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is Linux");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

/// The children of this process.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let parent = |child: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        // After the name, which may have any characters: state, parent.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        (fields.next()? != "Z").then(|| fields.next()?.parse().ok())?
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten();
    let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    all.filter(|child| parent(*child) == Some(own)).collect()
}

/// Ends the children that compile.
fn kill_children() {
    for child in children() {
        // SAFETY: a plain system call; the number is that of a child.
        unsafe { libc::kill(child.cast_signed(), libc::SIGKILL) };
    }
}

/// Waits for an event outside of this process, which nothing announces.
fn wait_until(what: &str, mut event: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !event() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}: not so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// No limits before compilation: what comes after is what is tested.
fn unlimited() -> ModuleLimits {
    ModuleLimits {
        size: usize::MAX,
        functions: u32::MAX,
        body: usize::MAX,
        nesting: u32::MAX,
        locals: u32::MAX,
        loop_locals: u64::MAX,
        loops: u64::MAX,
        total_loops: u64::MAX,
        blocks: u64::MAX,
        total_blocks: u64::MAX,
        live_values: u64::MAX,
        total_live_values: u64::MAX,
        passed_values: u64::MAX,
        total_passed_values: u64::MAX,
        ..ModuleLimits::default()
    }
}
