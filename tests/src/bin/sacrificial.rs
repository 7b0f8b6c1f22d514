//! A host that the tests can afford to lose. It opens a slot with one image, reloads another, each after a rehearsal,
//! and prints what happened: `sacrificial plugin|raw GOOD BAD [deadline=MS] [memory=BYTES] [cpu=S] [folder=PATH] [config=TEXT]
//! [open=PATH] [unrehearsed=1]`

use std::error::Error;
use std::time::Duration;

use hotslot::native::{Native, NativePlugin, Rehearsal, Trust};
use hotslot::{Backend, HotSlot};

fn main() -> Result<(), Box<dyn Error>> {
    hotslot::native::rehearsal_point();

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, good, bad, settings @ ..] = &arguments[..] else {
        return Err("see the source for its arguments".into());
    };
    let setting = |name: &str| settings.iter().find_map(|setting| setting.strip_prefix(name)?.strip_prefix('='));
    // Only a test that sets a deadline waits for it.
    let mut rehearsal = Rehearsal { deadline: Duration::from_secs(120), ..Rehearsal::default() };
    if let Some(deadline) = setting("deadline") {
        rehearsal.deadline = Duration::from_millis(deadline.parse()?);
    }
    rehearsal.memory = setting("memory").map(str::parse).transpose()?;
    rehearsal.cpu = setting("cpu").map(str::parse).transpose()?.map(Duration::from_secs);
    if let Some(loading) = setting("loading") {
        rehearsal.loading = Duration::from_millis(loading.parse()?);
    }
    hotslot_tests::leave_no_children(setting("children"));
    if let Some(path) = setting("open") {
        hotslot_tests::open_for_children(path)?;
    }
    let (good, bad) = (std::fs::read(good)?, std::fs::read(bad)?);
    match &**kind {
        "plugin" => {
            let config = setting("config").unwrap_or_default();
            let mut backend = Native::named_interface("fixture/1", trust()).config(config).rehearse(rehearsal);
            if let Some(folder) = setting("folder") {
                backend = backend.private_folder(folder);
            }
            reload(backend, good, bad, |plugin: &NativePlugin| {
                let number = plugin.call(1, b"").expect("it answers");
                println!(
                    "config: {}",
                    String::from_utf8_lossy(&plugin.call(8, b"").expect("it knows its configuration"))
                );
                String::from_utf8_lossy(&number).parse().expect("the answer is a number")
            })
        }
        "raw" => {
            type Answer = unsafe extern "C" fn() -> i32;
            // SAFETY: the type is that of the fixtures; their constructors are what this process is for.
            let backend = unsafe { Native::raw(|library| Ok(library.get::<Answer>("answer")?)) };
            let unrehearsed = setting("unrehearsed").is_some();
            let mut backend = if unrehearsed { backend.without_rehearsal() } else { backend.rehearse(rehearsal) };
            if let Some(folder) = setting("folder") {
                backend = backend.private_folder(folder);
            }
            // SAFETY: as above; the slot holds the library during the call.
            reload(backend, good, bad, |answer| unsafe { answer() })
        }
        other => Err(format!("{other} is neither plugin nor raw").into()),
    }
}

fn reload<T: Send + Sync + 'static>(
    backend: impl Backend<T>,
    good: Vec<u8>,
    bad: Vec<u8>,
    answer: impl Fn(&T) -> i32,
) -> Result<(), Box<dyn Error>> {
    let slot = HotSlot::builder(backend).open(good)?;
    if let Err(error) = slot.reload(bad) {
        println!("refused: {error}");
    }
    println!("serving: {}", answer(&slot.load()));
    Ok(())
}

fn trust() -> Trust {
    // SAFETY: the fixtures are ours, and what they do is what is tested.
    unsafe { Trust::assume() }
}
