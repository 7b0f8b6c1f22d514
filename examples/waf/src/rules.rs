//! The rules as the node sees them: plugins of the interface [`Waf`], made with a rule file, in a slot.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use hotslot::host::{CallError, CallErrorKind};
use hotslot::native::{Native, Trust};
use hotslot::wasm::{self, CallLimits, InstancePolicy};
use hotslot::{Auto, BoxError, Format, HotSlot, Probation, escape_untrusted};
use hotslot_trust::Purpose;
use hyper::{HeaderMap, Method, Uri};
use waf_interface::{CLIENT, Decision, FieldTooLong, IF_UNREAD, Reason, Verdict, Waf};

use crate::config::{self, Config, Module, Sample};
use crate::policy::Subject;
use crate::release::Release;
use crate::trial::Key;
use crate::trust;

/// A request as the rules see it.
#[derive(Clone, Copy)]
pub struct Inspected<'a> {
    /// The host that it is for. The rules find it in its header, if they get to see that.
    pub host: &'a str,
    pub method: &'a Method,
    pub target: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub client: IpAddr,
    /// What is to happen to what the rules cannot inspect.
    pub if_unread: Verdict,
    /// What says which version judges it, while one is tried.
    pub key: &'a Key,
}

impl<'a> Inspected<'a> {
    /// What the policy looks at.
    pub fn subject(&self) -> Subject<'a> {
        let (host, path, method, client) = (self.host, self.target.path(), self.method.as_str(), self.client);
        Subject { host, path, method, client }
    }
}

/// Why there is no verdict.
#[derive(Debug)]
pub enum Failure {
    /// The request cannot be written down for the rules.
    Request(FieldTooLong),
    Call(CallError),
}

impl Failure {
    /// Returns a short label for metrics.
    pub fn kind(&self) -> &'static str {
        let Failure::Call(error) = self else { return "request" };
        match error.kind() {
            CallErrorKind::Panicked => "trap",
            CallErrorKind::DeadlineExceeded => "deadline",
            CallErrorKind::OutOfMemory => "memory",
            CallErrorKind::Saturated => "saturated",
            CallErrorKind::Failed | CallErrorKind::Malformed => "verdict",
            _ => "call",
        }
    }

    /// Returns its text if it speaks against the rules, and not against the request or the load.
    pub fn fault(&self) -> Option<String> {
        ["trap", "deadline", "memory", "verdict"].contains(&self.kind()).then(|| self.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Request(error) => error.fmt(f),
            Failure::Call(error) => error.fmt(f),
        }
    }
}

/// The engine of one module, and what its versions may do. Each module has its own, so that none takes instances and memory
/// from another one.
#[derive(Clone)]
pub struct Engine {
    wasm: wasm::Engine,
    module: Module,
    max_artifact_size: usize,
    takes_libraries: bool,
    trust: Option<Arc<trust::Trust>>,
}

impl Engine {
    /// An engine for the first module of this configuration, which keeps what it has compiled in `cache`.
    pub fn new(config: &Config, cache: Option<&Path>) -> Result<Engine, BoxError> {
        Engine::of(config.modules()?.swap_remove(0), config, cache)
    }

    /// An engine for a module of this configuration.
    pub fn of(module: Module, config: &Config, cache: Option<&Path>) -> Result<Engine, BoxError> {
        // A generation that serves, one that drains, one that is staged or tried, those of the fallback, and those of the rules
        // that are asked where others are mild.
        let instances = u32::try_from(module.limits.concurrent_calls.get().saturating_mul(7))?;
        let builder = wasm::Engine::builder().max_instances(instances);
        let wasm = match cache {
            Some(folder) => builder.cache_dir(folder).build()?,
            None => builder.build()?,
        };
        let max_artifact_size = config.admin.max_upload_bytes;
        Ok(Engine { wasm, module, max_artifact_size, takes_libraries: config.native.enabled, trust: None })
    }

    /// Has everything that is loaded pass this first.
    pub fn trusting(self, trust: Option<Arc<trust::Trust>>) -> Engine {
        Engine { trust, ..self }
    }

    /// What everything that is loaded has to pass.
    pub fn trust(&self) -> Option<&Arc<trust::Trust>> {
        self.trust.as_ref()
    }

    /// Returns the requests that every version of the module is tried on.
    pub fn samples(&self) -> &[Sample] {
        self.module.samples()
    }

    /// Returns whether what fails on a new version is put to the one before.
    pub fn takes_second_opinions(&self) -> bool {
        self.module.probation.second_opinions > 0
    }

    /// How many instances of the module there are.
    pub fn instances(&self) -> usize {
        self.wasm.status().instances
    }

    /// The size in bytes of the snapshot that the instances of a generation start from; nothing where each is created.
    pub fn snapshot_size(&self, slot: &str, generation: u64) -> Option<usize> {
        let snapshots = self.wasm.snapshots();
        let mut own = snapshots.iter().filter(|status| &*status.slot == slot && status.generation == generation);
        own.find_map(|status| Some(status.snapshot.as_ref().ok()?.size))
    }

    /// Loads modules within the limits, and libraries if they are allowed.
    fn backend(&self) -> Auto<dyn Waf> {
        let config::Limits { deadline, load_deadline, memory_bytes, concurrent_calls, calls_per_instance, create_once } =
            self.module.limits;
        let limits = CallLimits { deadline: deadline.0, memory: memory_bytes, ..CallLimits::default() };
        let policy = match NonZeroU32::new(calls_per_instance) {
            Some(max_uses) if max_uses.get() > 1 => InstancePolicy::Reuse { max_uses },
            _ => InstancePolicy::Fresh,
        };
        let modules = self
            .wasm
            .interface::<dyn Waf>()
            .call_limits(limits)
            .load_deadline(deadline.0.max(load_deadline.0))
            .instance_policy(policy)
            .concurrency(concurrent_calls);
        let modules = match create_once.unwrap_or(policy == InstancePolicy::Fresh) {
            true => modules.preinitialize(),
            false => modules,
        };
        let auto = Auto::new().on(Format::WasmModule, modules);
        if self.takes_libraries {
            auto.on(Format::LIBRARIES, Native::interface::<dyn Waf>(trust_libraries()))
        } else {
            auto.refuse(Format::LIBRARIES, NO_LIBRARIES)
        }
    }
}

/// What an operator grants with `enabled = true` in the section [waf.native].
#[expect(unsafe_code, reason = "the one place where this program takes libraries on trust")]
fn trust_libraries() -> Trust {
    // SAFETY: the operator says so, and only those with the admin token can hand one over.
    unsafe { Trust::assume() }
}

/// Why libraries are refused, unless the configuration allows them.
const NO_LIBRARIES: &str = "this is a library, which could do whatever this node can: only modules are taken, unless \
                            `enabled = true` is in the section [waf.native] of the configuration";

/// The share of the calls that must not exceed the latency limit of the probation.
const FAST_SHARE: f64 = 0.99;

/// Opens a slot with a release. Each one has to pass the samples before it serves.
pub fn open(
    name: &str,
    engine: &Engine,
    release: &Release,
    samples: &[Sample],
) -> Result<HotSlot<dyn Waf>, hotslot::Error> {
    let (samples, module) = (samples.to_vec(), &engine.module);
    let slot = HotSlot::builder(engine.backend())
        .name(name)
        .keep_previous(module.keep_previous_versions)
        .min_reload_interval(module.reload.min_interval.0)
        .reload_timeout(module.reload.timeout.0)
        .max_artifact_size(engine.max_artifact_size)
        .probation(probation(&module.probation))
        .probe(move |rules: &dyn Waf| prove(rules, &samples));
    let slot = match engine.trust.clone() {
        None => slot,
        Some(trust) => {
            trust.announce(&release.module, Purpose::Rollback);
            slot.admit(move |artifact| trust.admit(artifact))
        }
    };
    slot.open(release.candidate().requested_by("start"))
}

/// Inspecting is repeatable: a request that fails on the version before, too, counts against neither.
fn probation(limits: &config::Probation) -> Probation {
    let probation = Probation::new(limits.window.0)
        .max_failed_share(limits.max_error_rate.0, limits.min_calls)
        .second_opinions(limits.second_opinions);
    match limits.max_latency {
        Some(most) => probation.max_latency(FAST_SHARE, most.0, limits.min_calls),
        None => probation,
    }
}

thread_local! {
    /// Where requests are written down, so that not every one allocates.
    static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns what the rules say of a request.
pub fn inspect(rules: &dyn Waf, request: &Inspected<'_>) -> Result<Decision, Failure> {
    let client = request.client.to_string();
    let own = [(CLIENT, client.as_str()), (IF_UNREAD, request.if_unread.name())];
    let own = own.into_iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let headers = request.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).chain(own);
    let target = request.target.path_and_query().map_or("/", |target| target.as_str());
    let result = WRITTEN.with_borrow_mut(|written| {
        let method = request.method.as_str().as_bytes();
        waf_interface::encode(written, method, target.as_bytes(), headers, request.body).map_err(Failure::Request)?;
        rules.inspect_request(written).map_err(Failure::Call)
    });
    result.map(|Decision { verdict, reason }| Decision { verdict, reason: reason.map(safe) })
}

/// Text from a plugin, made safe to print.
fn safe(Reason { rule, part, matched, score }: Reason) -> Reason {
    let safe = |text: String| escape_untrusted(&text).chars().take(512).collect();
    Reason { rule: safe(rule), part: safe(part), matched: safe(matched), score }
}

/// Asks again if a call takes too long, twice at the most: a machine that is busy for a moment, as it is when everything on it
/// starts, is no reason to refuse a module or to go back to an older one.
fn judge_patiently(rules: &dyn Waf, request: &Inspected<'_>) -> Result<Decision, Failure> {
    let is_late = |judged: &Result<Decision, Failure>| matches!(judged, Err(Failure::Call(error)) if error.kind() == CallErrorKind::DeadlineExceeded);
    let in_time = (0..2).map(|_| inspect(rules, request)).find(|judged| !is_late(judged));
    in_time.unwrap_or_else(|| inspect(rules, request))
}

/// Tries rules on samples.
fn prove(rules: &dyn Waf, samples: &[Sample]) -> Result<(), BoxError> {
    for Sample { name, method, target, headers, body, verdict } in samples {
        let (method, target, headers) = (method.parse()?, target.parse()?, headers.try_into()?);
        let request = Inspected {
            host: "",
            method: &method,
            target: &target,
            headers: &headers,
            body: body.as_bytes(),
            client: Ipv4Addr::LOCALHOST.into(),
            if_unread: Verdict::Block,
            key: &Key::Client(Ipv4Addr::LOCALHOST.into()),
        };
        let got = judge_patiently(rules, &request)
            .map_err(|failure| format!("the sample {name:?} got no verdict: {failure}"))?
            .verdict as u32;
        if got != *verdict {
            return Err(format!("the sample {name:?} got the verdict {got} instead of {verdict}").into());
        }
    }
    Ok(())
}
