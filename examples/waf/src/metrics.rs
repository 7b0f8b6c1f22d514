//! What `/metrics` shows. Labels take few values, whatever requests, modules and uploads say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::StatusCode;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use waf_interface::Verdict;

use crate::sites::SiteStatus;
use crate::trial::Measured;
use crate::trust::Refusals;

/// More rules than this are counted together, as `other`.
const RULES: usize = 256;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Module {
    module: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Given {
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Rule {
    rule: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct At {
    listener: &'static str,
}

/// There are as many as the configuration names.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Behind {
    upstream: String,
}

/// What is known of upstreams.
#[derive(Default)]
struct Upstreams {
    up: Family<Behind, Gauge>,
    under_way: Family<Behind, Gauge>,
    requests: Family<Behind, Counter>,
    failures: Family<Behind, Counter>,
    ejections: Family<Behind, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Cause {
    module: String,
    cause: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GivenBy {
    module: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindOf {
    module: String,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TrialOutcome {
    module: String,
    mode: &'static str,
    outcome: &'static str,
}

/// What is counted of one module.
#[derive(Clone)]
pub struct ModuleMetrics {
    all: Arc<Metrics>,
    module: Module,
    /// By the verdicts' numbers.
    verdicts: [Counter; Verdict::ALL.len()],
    calls: Histogram,
}

/// The numbers of a module that are known only at the moment.
pub struct Now {
    pub generation: u64,
    pub retired: usize,
    pub instances: usize,
    pub snapshot_size: usize,
}

pub struct Metrics {
    registry: Registry,
    trust_refusals: Refusals,
    reloads: Family<Module, Counter>,
    reload_failures: Family<Module, Counter>,
    /// Of the last reload, under the name that operators know.
    reload_duration: Family<Module, Gauge<f64, AtomicU64>>,
    reload_times: Family<Module, Histogram>,
    rollbacks: Family<Cause, Counter>,
    retired: Family<Module, Gauge>,
    instances: Family<Module, Gauge>,
    snapshot_size: Family<Module, Gauge>,
    generation: Family<Module, Gauge>,
    module_verdicts: Family<GivenBy, Counter>,
    module_calls: Family<Module, Histogram>,
    module_errors: Family<KindOf, Counter>,
    verdicts: Family<Given, Counter>,
    detected: Family<Given, Counter>,
    matches: Family<Rule, Counter>,
    known_rules: Mutex<BTreeSet<String>>,
    /// Held while what is known only at the moment is taken up and written.
    writing: Mutex<()>,
    calls: Histogram,
    errors: Family<Kind, Counter>,
    requests: Family<Status, Counter>,
    latency: Histogram,
    upstream_latency: Family<Behind, Histogram>,
    given_up: Family<Kind, Counter>,
    limited: Family<Rule, Counter>,
    connections: Family<At, Gauge>,
    upstreams: Upstreams,
    trial_share: Family<Module, Gauge<f64, AtomicU64>>,
    /// Of the latest trial.
    trial_calls: Family<Module, Counter>,
    trial_failures: Family<Module, Counter>,
    trial_differences: Family<Module, Counter>,
    trials: Family<TrialOutcome, Counter>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            trust_refusals: Refusals::default(),
            reloads: Family::default(),
            reload_failures: Family::default(),
            reload_duration: Family::default(),
            // From a millisecond to half a minute.
            reload_times: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            rollbacks: Family::default(),
            retired: Family::default(),
            instances: Family::default(),
            snapshot_size: Family::default(),
            generation: Family::default(),
            module_verdicts: Family::default(),
            // From two microseconds to a quarter of a second.
            module_calls: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_002, 2.0, 18))),
            module_errors: Family::default(),
            verdicts: Family::default(),
            detected: Family::default(),
            matches: Family::default(),
            known_rules: Mutex::default(),
            writing: Mutex::default(),
            // From two microseconds to a quarter of a second.
            calls: Histogram::new(exponential_buckets(0.000_002, 2.0, 18)),
            errors: Family::default(),
            requests: Family::default(),
            // From a tenth of a millisecond to a minute and a half.
            latency: Histogram::new(exponential_buckets(0.000_1, 2.0, 20)),
            upstream_latency: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_1, 2.0, 20))),
            given_up: Family::default(),
            limited: Family::default(),
            connections: Family::default(),
            upstreams: Upstreams::default(),
            trial_share: Family::default(),
            trial_calls: Family::default(),
            trial_failures: Family::default(),
            trial_differences: Family::default(),
            trials: Family::default(),
        };
        metrics.register();
        metrics.register_trials();
        metrics
    }

    fn register(&mut self) {
        let Metrics { registry, .. } = self;
        registry.register("wasm_reload", "Reloads that were tried", self.reloads.clone());
        registry.register("wasm_reload_failures", "Reloads that were refused", self.reload_failures.clone());
        let about = "Duration of the last reload, from its bytes to its end";
        registry.register_with_unit("wasm_reload_duration", about, Unit::Seconds, self.reload_duration.clone());
        let about = "Durations of reloads, from their bytes to their end";
        registry.register_with_unit("waf_reload_time", about, Unit::Seconds, self.reload_times.clone());
        registry.register("wasm_rollback", "Rollbacks", self.rollbacks.clone());
        registry.register("wasm_generation", "Number of the generation that serves", self.generation.clone());
        let about = "Generations that are loaded and do not serve, those kept for a rollback included";
        registry.register("wasm_retired_generations", about, self.retired.clone());
        registry.register("wasm_instances", "Instances of modules in memory", self.instances.clone());
        let about = "Size of the snapshot that instances start from; 0 where each is created";
        registry.register_with_unit("wasm_snapshot", about, Unit::Bytes, self.snapshot_size.clone());
        let about = "Verdicts of a module, also where a later one decided";
        registry.register("waf_module_verdicts", about, self.module_verdicts.clone());
        let about = "Duration of a call of a module, waiting for an instance included";
        registry.register_with_unit("waf_module_call_duration", about, Unit::Seconds, self.module_calls.clone());
        let about = "Calls of a module that gave no verdict";
        registry.register("waf_module_errors", about, self.module_errors.clone());
        registry.register("waf_verdicts", "Verdicts of all modules together", self.verdicts.clone());
        registry.register("waf_verdicts_not_enforced", "Verdicts that were only detected", self.detected.clone());
        registry.register("waf_rule_matches", "Verdicts other than allow, by rule", self.matches.clone());
        let about = "Duration of the calls of all modules for a request, waiting for instances included";
        registry.register_with_unit("waf_rules_call_duration", about, Unit::Seconds, self.calls.clone());
        registry.register("waf_rules_errors", "Calls of the rules that gave no verdict", self.errors.clone());
        registry.register("waf_requests", "Requests that were answered", self.requests.clone());
        let about = "Duration of a request, from its header to its answer's";
        registry.register_with_unit("waf_request_duration", about, Unit::Seconds, self.latency.clone());
        let about = "Duration from when a request was sent to an upstream to its answer's header";
        registry.register_with_unit("waf_upstream_duration", about, Unit::Seconds, self.upstream_latency.clone());
        let about = "Requests without a verdict, because their body was not held back to its end";
        registry.register("waf_bodies_given_up", about, self.given_up.clone());
        registry.register(
            "waf_connections",
            "Connections that are open, websockets included",
            self.connections.clone(),
        );
        let about = "Requests over a rate limit, by the limit's name";
        registry.register("waf_rate_limited", about, self.limited.clone());
        let Upstreams { up, under_way, requests, failures, ejections } = &self.upstreams;
        registry.register("waf_upstream_up", "Whether an upstream gets requests", up.clone());
        let about = "Requests that wait for an upstream's answer";
        registry.register("waf_upstream_requests_under_way", about, under_way.clone());
        registry.register("waf_upstream_requests", "Requests that were sent to an upstream", requests.clone());
        registry.register("waf_upstream_failures", "Requests that an upstream did not answer", failures.clone());
        let about = "How often an upstream was given no more requests for a while";
        registry.register("waf_upstream_ejections", about, ejections.clone());
        let about = "Modules that were refused because of their signatures or counters";
        registry.register("waf_trust_refusals", about, self.trust_refusals.clone());
    }

    fn register_trials(&mut self) {
        let Metrics { registry, .. } = self;
        let about = "Share of the clients or requests that the version which is tried gets";
        registry.register("wasm_trial_share", about, self.trial_share.clone());
        let about = "Calls of the version that is or was tried last";
        registry.register("wasm_trial_calls", about, self.trial_calls.clone());
        let about = "Calls of it that failed, or that a canary refused where the serving version did not";
        registry.register("wasm_trial_failures", about, self.trial_failures.clone());
        let about = "Requests on which a shadow's verdict was another one";
        registry.register("wasm_trial_differences", about, self.trial_differences.clone());
        registry.register("wasm_trials_ended", "Trials that ended, by how", self.trials.clone());
    }

    /// Notes how long the modules took for a request together.
    pub fn called(&self, took: Duration) {
        self.calls.observe(took.as_secs_f64());
    }

    /// Counts what a request came to, and whether that was enforced.
    pub fn verdict(&self, verdict: Verdict, enforced: bool) {
        if !enforced {
            self.detected.get_or_create(&Given { verdict: verdict.name() }).inc();
        }
        self.verdicts.get_or_create(&Given { verdict: verdict.name() }).inc();
    }

    /// Counts a verdict other than allow, by its rule.
    pub fn matched(&self, rule: &str) {
        self.matches.get_or_create(&Rule { rule: self.bounded(rule) }).inc();
    }

    /// The rule's name, or `other` if there are too many.
    fn bounded(&self, rule: &str) -> String {
        let mut known = self.known_rules.lock();
        if known.contains(rule) || (known.len() < RULES && rule.len() <= 64 && known.insert(rule.to_owned())) {
            rule.to_owned()
        } else {
            "other".to_owned()
        }
    }

    /// Returns what counts the open connections of the data listener, and of the admin listener.
    pub fn connections(&self) -> (Gauge, Gauge) {
        let at = |listener| self.connections.get_or_create(&At { listener }).clone();
        (at("data"), at("admin"))
    }

    /// Counts an answer of an upstream.
    pub fn upstream_answered(&self, upstream: &str, took: Duration) {
        let behind = Behind { upstream: upstream.to_owned() };
        self.upstream_latency.get_or_create(&behind).observe(took.as_secs_f64());
    }

    /// Counts a request over a limit. There are as many as the configuration names.
    pub fn limited(&self, limit: &str) {
        self.limited.get_or_create(&Rule { rule: limit.to_owned() }).inc();
    }

    /// Counts a body that was not held back to its end.
    pub fn given_up(&self, kind: &'static str) {
        self.given_up.get_or_create(&Kind { kind }).inc();
    }

    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, took: Duration) {
        self.latency.observe(took.as_secs_f64());
        let status = match status.as_u16() {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&Status { status }).inc();
    }

    /// Takes up how the upstreams are. Those that are gone are forgotten.
    pub fn upstreams(&self, sites: &[SiteStatus]) {
        let Upstreams { up, under_way, requests, failures, ejections } = &self.upstreams;
        [up, under_way].iter().for_each(|family| family.clear());
        [requests, failures, ejections].iter().for_each(|family| family.clear());
        for state in sites.iter().flat_map(|site| &site.upstreams) {
            let behind = Behind { upstream: state.url.clone() };
            up.get_or_create(&behind).set(i64::from(state.up));
            under_way.get_or_create(&behind).inc_by(state.under_way as i64);
            requests.get_or_create(&behind).inc_by(state.requests);
            failures.get_or_create(&behind).inc_by(state.failures);
            ejections.get_or_create(&behind).inc_by(state.ejections);
        }
    }

    /// How often each rule matched, the most frequent first.
    pub fn matches(&self) -> Vec<(String, u64)> {
        let known: Vec<String> = self.known_rules.lock().iter().cloned().chain(["other".to_owned()]).collect();
        let count = |rule: String| {
            let count = self.matches.get(&Rule { rule: rule.clone() }).map_or(0, |counter| counter.get());
            (rule, count)
        };
        let mut matches: Vec<_> = known.into_iter().map(count).filter(|(_, count)| *count > 0).collect();
        matches.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        matches
    }

    /// How often each verdict was given.
    pub fn verdicts(&self) -> [(&'static str, u64); 4] {
        Verdict::ALL.map(|verdict| {
            let given = Given { verdict: verdict.name() };
            (verdict.name(), self.verdicts.get(&given).map_or(0, |counter| counter.get()))
        })
    }

    /// What the modules refused because of their signatures.
    pub fn trust_refusals(&self) -> &Refusals {
        &self.trust_refusals
    }

    /// The text of `/metrics`, once `take_up` has taken up what is known only at the moment. Of two at a time, one waits: neither
    /// sees what the other one has half done.
    pub fn text(&self, take_up: impl FnOnce()) -> Result<String, std::fmt::Error> {
        let _writing = self.writing.lock();
        take_up();
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl ModuleMetrics {
    /// What is counted of the module with this name, among all that is counted.
    pub fn new(all: Arc<Metrics>, module: &str) -> ModuleMetrics {
        let module = Module { module: module.to_owned() };
        // There from the start, so that a rate can be taken over the first one.
        drop(all.reloads.get_or_create(&module));
        drop(all.reload_failures.get_or_create(&module));
        drop(all.reload_times.get_or_create(&module));
        let verdicts = Verdict::ALL.map(|verdict| {
            let given = GivenBy { module: module.module.clone(), verdict: verdict.name() };
            all.module_verdicts.get_or_create(&given).clone()
        });
        let calls = all.module_calls.get_or_create(&module).clone();
        ModuleMetrics { all, module, verdicts, calls }
    }

    pub fn reloaded(&self, took: Duration, success: bool) {
        let ModuleMetrics { all, module, .. } = self;
        all.reloads.get_or_create(module).inc();
        if !success {
            all.reload_failures.get_or_create(module).inc();
        }
        all.reload_duration.get_or_create(module).set(took.as_secs_f64());
        all.reload_times.get_or_create(module).observe(took.as_secs_f64());
    }

    pub fn rolled_back(&self, cause: &str) {
        let cause = Cause { module: self.module.module.clone(), cause: cause.to_owned() };
        self.all.rollbacks.get_or_create(&cause).inc();
    }

    pub fn called(&self, took: Duration) {
        self.calls.observe(took.as_secs_f64());
    }

    pub fn verdict(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].inc();
    }

    pub fn failed(&self, kind: &'static str) {
        self.all.errors.get_or_create(&Kind { kind }).inc();
        self.all.module_errors.get_or_create(&KindOf { module: self.module.module.clone(), kind }).inc();
    }

    /// Counts a trial that ended.
    pub fn trial_ended(&self, mode: &'static str, outcome: &'static str) {
        let ended = TrialOutcome { module: self.module.module.clone(), mode, outcome };
        self.all.trials.get_or_create(&ended).inc();
    }

    /// Takes up how the latest trial is. With each trial its counts begin anew.
    pub fn tried(&self, trial: &Measured) {
        let ModuleMetrics { all, module, .. } = self;
        all.trial_share.get_or_create(module).set(trial.share);
        for (family, count) in [
            (&all.trial_calls, trial.calls),
            (&all.trial_failures, trial.failures),
            (&all.trial_differences, trial.differences),
        ] {
            family.remove(module);
            family.get_or_create(module).inc_by(count);
        }
    }

    /// Takes up how the module is at the moment.
    pub fn is_now(&self, Now { generation, retired, instances, snapshot_size }: Now) {
        let ModuleMetrics { all, module, .. } = self;
        all.generation.get_or_create(module).set(generation as i64);
        all.retired.get_or_create(module).set(retired as i64);
        all.instances.get_or_create(module).set(instances as i64);
        all.snapshot_size.get_or_create(module).set(snapshot_size as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::{Metrics, SiteStatus};
    use crate::sites::State;

    #[test]
    fn ten_thousand_rules_do_not_make_ten_thousand_labels() {
        let metrics = Metrics::new();
        (0..10_000).for_each(|rule| metrics.matched(&format!("rule-{rule}")));
        let text = metrics.text(|| {}).unwrap();
        assert_eq!(text.matches("waf_rule_matches_total{").count(), 257);
        assert_eq!(metrics.matches()[0], ("other".to_owned(), 10_000 - 256));
    }

    #[test]
    fn no_scrape_sees_what_another_one_has_half_done() {
        let metrics = Metrics::new();
        let mut state = State::default();
        (state.url, state.requests) = ("http://a".to_owned(), 7);
        let mut sites = [SiteStatus::default()];
        sites[0].upstreams.push(state);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let text = metrics.text(|| metrics.upstreams(&sites)).unwrap();
                        assert!(text.contains("waf_upstream_requests_total{upstream=\"http://a\"} 7\n"), "{text}");
                    }
                });
            }
        });
    }
}
