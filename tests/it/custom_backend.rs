//! A backend of a user's own, written with nothing but the public API: its plugins are scripts in a small language, which
//! implement a declared interface, and have a configuration, services, messages, log lines and state.
//!
//! What it shares with the library's own backends it takes from `hotslot::host`; the rest is the interpreter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use hotslot::host::{
    Argument, Arguments, BoundService, CallError, CallErrorKind, Contract, ContractError, Interface, InterfaceLink,
    InterfacePlugin, Level, Malformed, MethodNumbers, Offers, PluginHost, Reply, Stop, plugin_text,
};
use hotslot::{
    Admission, Artifact, Backend, BoxError, Candidate, ErrorKind, HotSlot, LoadContext, Loaded, Manifest, Payload,
    PluginScope, Stage, State, Stateful,
};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_fixture_interface::{Ledger, Note, v2_0};

use crate::conformance::Kind;

/// The backend.
#[derive(Clone, Default)]
struct Scripts {
    offers: Offers,
}

/// What admission makes of a script.
struct Script {
    contract: Arc<Contract>,
    /// The host's methods, as the script numbers them.
    methods: MethodNumbers,
    answer: u64,
}

impl<I: Interface + ?Sized> Backend<I> for Scripts {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        let text = std::str::from_utf8(payload.bytes())?;
        let (head, body) = text.split_once('\n').ok_or("a script begins with `script NAME VERSION`")?;
        let mut words = head.split(' ');
        let (Some("script"), Some(name), Some(version)) = (words.next(), words.next(), words.next()) else {
            let head = plugin_text(head.as_bytes(), 80);
            return Err(format!("`{head}` is not `script NAME VERSION`").into());
        };
        let (contract, program) = body.split_once("\n\n").ok_or("a script has a contract and a program")?;
        let contract = Arc::new(Contract::parse(contract.as_bytes())?);
        let mut manifest = Manifest::new(name).with_version(version.parse()?).with_schema("count/1");
        manifest.contract = Some(Arc::clone(&contract));
        let methods = Contract::of::<I>().methods_in_manifest(&manifest)?;
        let answer = program.strip_prefix("answer ").ok_or("a program is `answer NUMBER`")?.trim_end().parse()?;
        Ok(Admission::new(manifest).with_evidence(Script { contract, methods, answer }))
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<I>, BoxError> {
        let script: &Script = artifact.evidence().ok_or("this was admitted by another backend")?;
        let plugin = Interpreter::create(script, self.offers.host_for(artifact, context))?;
        Ok(Loaded::boxed(I::proxy(InterfaceLink::new(plugin, script.methods.clone(), context))))
    }
}

/// A live script.
struct Interpreter {
    contract: Arc<Contract>,
    answer: u64,
    count: AtomicU64,
    host: PluginHost,
    ledger: Option<BoundService>,
}

impl Interpreter {
    /// Does what the other fixtures do in their `create`.
    fn create(script: &Script, host: PluginHost) -> Result<Interpreter, BoxError> {
        let ledger = match &**host.config() {
            b"refuse" => return Err("the configuration says no".into()),
            b"ledger" => Some(host.service(<dyn Ledger as Interface>::CONTRACT.as_bytes())?),
            _ => None,
        };
        let Script { contract, answer, .. } = script;
        Ok(Interpreter { contract: Arc::clone(contract), answer: *answer, count: AtomicU64::new(0), host, ledger })
    }

    /// Runs a method: fills `words`, and returns the bytes of the answer.
    fn run(&self, method: &str, arguments: &[Argument<'_>], words: &mut [u64]) -> Result<Vec<u8>, CallError> {
        match method {
            "answer" => words[0] = self.answer,
            "add" => {
                let more = arguments.first().and_then(Argument::as_word).ok_or(Malformed("a number, please"))?;
                words[0] = self.count.fetch_add(more, Ordering::Relaxed) + more;
            }
            "config" => return Ok(self.host.config().to_vec()),
            "fail" => return self.fail(Arguments::new(arguments).bytes()?),
            _ => return Err(CallError::new(CallErrorKind::Unsupported, "the script has no such method")),
        }
        Ok(Vec::new())
    }

    fn fail(&self, how: &[u8]) -> Result<Vec<u8>, CallError> {
        match how {
            b"panic" => return Err(CallError::new(CallErrorKind::Panicked, "as it was told")),
            b"fail" => return Err(CallError::failed("as it was told")),
            b"log" => self.host.log(Level::Warn, None, b"as it was told"),
            b"send" => self.host.send(b"as it was told")?,
            b"note" => {
                let ledger = self.ledger.as_ref().ok_or_else(|| CallError::failed("there is no ledger"))?;
                let mut words = [0];
                ledger.call(0, &[Argument::bytes(b"a line")], &mut words)?;
                return Ok(words[0].to_string().into_bytes());
            }
            how => return Ok(how.to_ascii_uppercase()),
        }
        Ok(Vec::new())
    }
}

impl InterfacePlugin for Interpreter {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let bytes = self.run(&self.contract.methods[method as usize].name, arguments, words)?;
        Ok(read(&mut Reply::new(words, &bytes))?)
    }

    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        while !stop.is_raised() {
            self.count.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Stateful for Interpreter {
    fn save(&self) -> Result<Option<State>, BoxError> {
        let bytes = self.count.load(Ordering::Relaxed).to_le_bytes().to_vec();
        Ok(Some(State { schema: "count/1".to_owned(), bytes }))
    }

    fn restore(&self, state: &State) -> Result<(), BoxError> {
        if state.schema != "count/1" {
            return Err(format!("the schema {:?} is not known", state.schema).into());
        }
        self.count.store(u64::from_le_bytes(state.bytes.as_slice().try_into()?), Ordering::Relaxed);
        Ok(())
    }
}

/// A script of `dyn Fixture`.
fn script(version: &str, answer: u64) -> Vec<u8> {
    // Its methods are in another order than the host's.
    let contract = Contract::of::<dyn Fixture>().to_string();
    let (head, methods) = contract.split_once('\n').expect("a contract has methods");
    let mut methods: Vec<_> = methods.lines().collect();
    methods.reverse();
    format!("script fixture {version}\n{head}\n{}\n\nanswer {answer}\n", methods.join("\n")).into_bytes()
}

fn open(scripts: Scripts) -> HotSlot<dyn Fixture> {
    HotSlot::builder(scripts).open(script("1.0.0", 1)).expect("the script is sound")
}

/// For the conformance suite.
pub(crate) struct Custom;

impl Kind for Custom {
    type Plugin = dyn Fixture;

    fn backend() -> impl Backend<dyn Fixture> {
        Scripts::default()
    }

    fn artifact(version: &str, answer: u64) -> Vec<u8> {
        script(version, answer)
    }

    fn answer(plugin: &dyn Fixture) -> u64 {
        plugin.answer()
    }

    fn add(plugin: &dyn Fixture, more: u64) -> u64 {
        plugin.add(more)
    }
}

#[test]
fn a_contract_that_does_not_fit_is_refused_at_admission() {
    let error = HotSlot::<dyn v2_0::Fixture>::builder(Scripts::default()).open(script("1.0.0", 1)).unwrap_err();
    assert_eq!(error.stage(), Stage::Admit);
    let ErrorKind::Refused(reason) = error.kind() else { panic!("{error}") };
    assert!(matches!(reason.downcast_ref(), Some(ContractError::Version { .. })), "{reason}");
}

#[test]
fn a_candidates_configuration_takes_the_place_of_the_backends() {
    let slot = open(Scripts { offers: Offers::new().config("of the backend") });
    assert_eq!(slot.load().config(), b"of the backend");
    slot.reload(Candidate::new(script("1.0.0", 1)).config("of the candidate")).unwrap();
    assert_eq!(slot.load().config(), b"of the candidate");
    let refused = slot.reload(Candidate::new(script("1.1.0", 2)).config("refuse")).unwrap_err();
    assert_eq!((refused.stage(), slot.load().config().as_slice()), (Stage::Load, &b"of the candidate"[..]));
}

#[test]
fn failures_that_are_the_plugins_fault_are_counted() {
    let slot = open(Scripts::default());
    let plugin = slot.load();
    assert_eq!(plugin.fail("a word").unwrap(), "A WORD");
    assert_eq!(plugin.fail("fail").unwrap_err().kind(), CallErrorKind::Failed);
    assert_eq!(slot.status().serving.unwrap().failures, 0);
    assert_eq!(plugin.fail("panic").unwrap_err().kind(), CallErrorKind::Panicked);
    assert_eq!(slot.status().serving.unwrap().failures, 1);
}

/// A ledger that notes whether its callers are inside of a scope.
struct Scoped {
    scope: Arc<OnceLock<PluginScope>>,
    lines: Mutex<u32>,
}

impl Ledger for Scoped {
    fn note(&self, _: &str) -> u32 {
        assert!(self.scope.get().is_some_and(PluginScope::is_entered), "a service is called inside of the scope");
        let mut lines = self.lines.lock().unwrap();
        *lines += 1;
        *lines
    }

    fn first(&self) -> Result<Note, CallError> {
        Err(CallError::failed("nothing was noted"))
    }

    fn panics(&self) -> Result<(), CallError> {
        panic!("the ledger is broken")
    }

    fn last(&self) -> String {
        String::new()
    }
}

/// Remembers the scope that a backend was given.
struct Watched<B> {
    backend: B,
    scope: Arc<OnceLock<PluginScope>>,
}

impl<T: ?Sized, B: Backend<T>> Backend<T> for Watched<B> {
    fn admit(&self, payload: &Payload) -> Result<Admission, BoxError> {
        self.backend.admit(payload)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<T>, BoxError> {
        self.scope.get_or_init(|| context.scope.clone());
        self.backend.load(artifact, context)
    }
}

#[test]
fn what_a_plugin_calls_in_its_host_runs_inside_of_the_slots_scope() {
    let (scope, heard) = (Arc::new(OnceLock::<PluginScope>::new()), Arc::new(AtomicBool::new(false)));
    let ledger: Arc<dyn Ledger> = Arc::new(Scoped { scope: Arc::clone(&scope), lines: Mutex::new(0) });
    let offers = Offers::new().config("ledger").service(ledger).on_message({
        let (scope, heard) = (Arc::clone(&scope), Arc::clone(&heard));
        move |plugin, message| {
            assert!(scope.get().is_some_and(PluginScope::is_entered), "a message is taken inside of the scope");
            assert_eq!((plugin.name.as_str(), plugin.generation, message), ("fixture", 1, &b"as it was told"[..]));
            heard.store(true, Ordering::Relaxed);
        }
    });
    let slot: HotSlot<dyn Fixture> =
        HotSlot::builder(Watched { backend: Scripts { offers }, scope: Arc::clone(&scope) })
            .open(script("1.0.0", 1))
            .unwrap();
    let plugin = slot.load();
    assert_eq!((plugin.fail("note").unwrap(), plugin.fail("note").unwrap()), ("1".to_owned(), "2".to_owned()));
    plugin.fail("send").unwrap();
    plugin.fail("log").unwrap();
    assert!(heard.load(Ordering::Relaxed) && !scope.get().unwrap().is_entered());
}

#[cfg(all(feature = "backends", target_os = "linux"))]
#[test]
fn so_does_what_a_library_calls() {
    let scope = Arc::new(OnceLock::<PluginScope>::new());
    let ledger: Arc<dyn Ledger> = Arc::new(Scoped { scope: Arc::clone(&scope), lines: Mutex::new(0) });
    let backend =
        hotslot::native::Native::interface::<dyn Fixture>(crate::support::trust()).config("ledger").service(ledger);
    let slot: HotSlot<dyn Fixture> = HotSlot::builder(Watched { backend, scope: Arc::clone(&scope) })
        .open(crate::interface::built::library("").bytes())
        .unwrap();
    assert_eq!(slot.load().fail("note").unwrap(), "1");
}
