//! The rules as the node sees them: a WebAssembly module, set up with a rule file, that gives a verdict on a request.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::sync::OnceLock;

use hotslot::wasm::{Binder, Buffer, Call, CallError, CallLimits, Func, InstancePolicy, Wasm, WasmBackend, WasmPlugin};
use hotslot::{Artifact, Backend, BoxError, Digest, LoadContext, Loaded, Manifest, printable};
use hyper::{HeaderMap, Method, Uri};
use serde::Deserialize;

use crate::config::{Limits, Sample};
use crate::release::RuleFile;

/// A request as the rules see it.
pub struct Inspected<'a> {
    pub method: &'a Method,
    pub target: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// What is to happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Allow,
    Block,
    Challenge,
    Log,
}

impl Action {
    /// What the module's number means.
    fn of(code: i32) -> Option<Action> {
        let actions = [Action::Allow, Action::Block, Action::Challenge, Action::Log];
        actions.get(usize::try_from(code).ok()?).copied()
    }

    pub fn name(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Block => "block",
            Action::Challenge => "challenge",
            Action::Log => "log",
        }
    }
}

pub struct Verdict {
    pub action: Action,
    pub reason: Reason,
}

/// Which rule decided, and on what; or what went wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reason {
    pub rule: String,
    pub part: String,
    pub matched: String,
    error: String,
}

/// Why there is no verdict.
#[derive(Debug)]
pub enum Failure {
    /// The request cannot be written down for the module.
    Request(waf_request::EncodeError),
    Call(CallError),
    /// The module answered with this number, and this reason.
    NoVerdict(i32, String),
}

impl Failure {
    /// A word for it, of a few.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Request(_) => "request",
            Failure::NoVerdict(..) => "verdict",
            Failure::Call(error) => match error {
                CallError::Trapped { .. } => "trap",
                CallError::DeadlineExceeded(_) => "deadline",
                CallError::OutOfMemory { .. } | CallError::OutOfTable { .. } => "memory",
                CallError::Saturated { .. } => "saturated",
                CallError::InputTooLarge { .. } => "request",
                _ => "call",
            },
        }
    }

    /// Whether it speaks against the module, and not against the request or the load.
    pub fn is_fault(&self) -> bool {
        match self {
            Failure::Request(_) => false,
            Failure::NoVerdict(..) => true,
            Failure::Call(error) => error.is_fault(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Request(error) => error.fmt(f),
            Failure::Call(error) => error.fmt(f),
            Failure::NoVerdict(code, error) => write!(f, "the module answered {code}, which is no verdict: {error}"),
        }
    }
}

/// The engine, the backend on it, and what every call may use.
#[derive(Clone)]
pub struct Engine {
    wasm: Wasm,
    limits: Limits,
}

impl Engine {
    pub fn new(limits: Limits, cache: std::path::PathBuf) -> Result<Engine, BoxError> {
        // A generation that serves, one that drains, one that is staged, and those of the fallback.
        let instances = u32::try_from(limits.concurrent_calls.get().saturating_mul(4))?;
        Ok(Engine { wasm: Wasm::builder().instances(instances).folder(cache).build()?, limits })
    }

    pub fn backend(&self) -> RulesBackend {
        let limits =
            CallLimits { deadline: self.limits.deadline.0, memory: self.limits.memory_bytes, ..CallLimits::default() };
        let policy = match NonZeroU32::new(self.limits.calls_per_instance) {
            Some(max_uses) if max_uses.get() > 1 => InstancePolicy::Reuse { max_uses },
            _ => InstancePolicy::Fresh,
        };
        let wasm = self
            .wasm
            .plugins(Exports::bind)
            .interface(INTERFACE)
            .require(INPUT, "(i32) -> i32")
            .require(CONFIGURE, "(i32) -> i32")
            .require(INSPECT, "(i32) -> i32")
            .require(REASON, "() -> i64")
            .call_limits(limits)
            .instances(policy)
            .concurrency(self.limits.concurrent_calls);
        RulesBackend { wasm }
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.wasm.status().instances
    }
}

/// What a module says in its manifest that it implements.
const INTERFACE: &str = "waf/1";

/// Room for this many bytes: a request with the part of its body that is inspected, or a rule file.
pub const ROOM: u32 = 1 << 20;

/// Tells where the module takes bytes.
const INPUT: &str = "input_buffer";
/// Takes a rule file of some length out of the buffer.
const CONFIGURE: &str = "configure";
/// Takes a request of some length out of the buffer, as `waf-request` writes it, and answers with a verdict.
const INSPECT: &str = "inspect_request";
/// Why the last call answered as it did: address and length of JSON.
const REASON: &str = "reason";

/// The module's functions, looked up once for each instance.
struct Exports {
    input: Buffer,
    configure: Func<u32, i32>,
    inspect: Func<u32, i32>,
    reason: Func<(), u64>,
    /// Whether this instance has been set up with its generation's rule file.
    set_up: Cell<bool>,
}

impl Exports {
    fn bind(binder: &mut Binder<'_>) -> Result<Exports, CallError> {
        Ok(Exports {
            input: binder.room(INPUT, ROOM)?,
            configure: binder.func(CONFIGURE)?,
            inspect: binder.func(INSPECT)?,
            reason: binder.func(REASON)?,
            set_up: Cell::new(false),
        })
    }

    fn set_up(&self, call: &mut Call<'_>, rules: &RuleFile) -> Result<(), CallError> {
        if self.set_up.get() {
            return Ok(());
        }
        let (_, length) = call.write(&self.input, rules.bytes())?;
        if call.run(&self.configure, length)? != 0 {
            return Err(CallError::failed(format!("the rule file: {}", self.read_reason(call)?.error)));
        }
        self.set_up.set(true);
        Ok(())
    }

    fn read_reason(&self, call: &mut Call<'_>) -> Result<Reason, CallError> {
        let answer = call.run(&self.reason, ())?;
        Ok(Reason::read(call.read_packed(answer)?))
    }
}

/// Loads modules as [`Rules`].
pub struct RulesBackend {
    wasm: WasmBackend<WasmPlugin<Exports>>,
}

impl Backend<Rules> for RulesBackend {
    fn admit(&self, bytes: &[u8]) -> Result<Manifest, BoxError> {
        self.wasm.admit(bytes)
    }

    fn load(&self, artifact: &Artifact, context: &LoadContext) -> Result<Loaded<Rules>, BoxError> {
        let digest = artifact.digest();
        let loaded = self.wasm.load(artifact, context)?;
        Ok(loaded.map(|plugin| Box::new(Rules { plugin: *plugin, digest, file: OnceLock::new() })))
    }
}

/// A module, once it is set up.
pub struct Rules {
    plugin: WasmPlugin<Exports>,
    digest: Digest,
    /// What each of its instances is set up with.
    file: OnceLock<RuleFile>,
}

thread_local! {
    /// Where requests are written down, so that not every one allocates.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Rules {
    /// The verdict on a request. `begin` is called when an instance is ready to work on it.
    pub fn inspect(&self, request: &Inspected<'_>, begin: impl FnOnce()) -> Result<Verdict, Failure> {
        let headers = || request.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let target = request.target.path_and_query().map_or("/", |target| target.as_str());
        WRITTEN.with_borrow_mut(|written| {
            let size = |bytes: usize| bytes + 16;
            let room = size(request.method.as_str().len()) + size(target.len()) + size(request.body.len());
            let room = room + headers().map(|(name, value)| size(name.len() + value.len())).sum::<usize>();
            if written.len() < room {
                written.resize(room, 0);
            }
            let method = request.method.as_str().as_bytes();
            let length = waf_request::encode(written, method, target.as_bytes(), headers(), request.body)
                .map_err(Failure::Request)?;
            self.ask(&written[..length], begin)
        })
    }

    fn ask(&self, request: &[u8], begin: impl FnOnce()) -> Result<Verdict, Failure> {
        let file = self.file.get().expect("rules are set up before they serve");
        let answer = self.plugin.call(|exports, call| {
            exports.set_up(call, file)?;
            begin();
            let (_, length) = call.write(&exports.input, request)?;
            let code = call.run(&exports.inspect, length)?;
            let reason = if code == 0 { Reason::default() } else { exports.read_reason(call)? };
            Ok((code, reason))
        });
        let (code, reason) = answer.map_err(Failure::Call)?;
        match Action::of(code) {
            Some(action) => Ok(Verdict { action, reason }),
            None => Err(Failure::NoVerdict(code, reason.error)),
        }
    }

    /// Whether these are what that module and that rule file make.
    pub fn is_set_up_with(&self, module: Digest, file: &RuleFile) -> bool {
        self.digest == module && self.file.get().is_some_and(|own| own.digest() == file.digest())
    }
}

impl Reason {
    /// Text from a module, made safe to print.
    fn read(json: &[u8]) -> Reason {
        let reason: Reason = serde_json::from_slice(json).unwrap_or_default();
        let safe = |text: &str| printable(text).chars().take(512).collect();
        let Reason { rule, part, matched, error } = &reason;
        Reason { rule: safe(rule), part: safe(part), matched: safe(matched), error: safe(error) }
    }
}

/// Sets rules up with their file, and tries them on samples. Before they serve: they are set up once.
pub fn prove(rules: &Rules, file: &RuleFile, samples: &[Sample]) -> Result<(), BoxError> {
    let file = rules.file.get_or_init(|| file.clone());
    rules.plugin.call(|exports, call| exports.set_up(call, file))?;
    for sample in samples {
        let headers = (&sample.headers).try_into()?;
        let (method, target) = (sample.method.parse()?, sample.target.parse()?);
        let request = Inspected { method: &method, target: &target, headers: &headers, body: sample.body.as_bytes() };
        let verdict = rules
            .inspect(&request, || {})
            .map_err(|failure| format!("the sample {:?} got no verdict: {failure}", sample.name))?;
        if verdict.action as u32 != sample.verdict {
            let (name, got, wanted) = (&sample.name, verdict.action as u32, sample.verdict);
            return Err(format!("the sample {name:?} got the verdict {got} instead of {wanted}").into());
        }
    }
    Ok(())
}
