//! A plugin behind the trait object of a declared interface.

use hotslot_plugin::{Argument, CallError, CallErrorKind, Link, Malformed, Reply, Stop, Transport};

use super::contract::MethodNumbers;
use crate::failures::FailureCounter;
use crate::nesting::{Nested, Refusal, Watch};
use crate::{BoxError, LoadContext, State, Stateful};

/// A plugin that a backend can call through a declared interface: what differs from backend to backend.
///
/// Its state goes over as [`Stateful`] says; a plugin that has none saves `None`.
pub trait InterfacePlugin: Stateful + Send + Sync + 'static {
    /// Calls a method, by the number that the *plugin's* contract gives it. It fills `words`, which is zeroed and as long
    /// as the answer has words; `read` takes the answer from them and from its bytes.
    ///
    /// # Errors
    /// The plugin gave no answer, or `read` cannot read it. One that is the plugin's
    /// [fault](crate::host::CallErrorKind::is_fault) is counted by the [link](InterfaceLink).
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError>;

    /// Runs the plugin until `stop` is raised. Plugins that are only called do not support it.
    ///
    /// # Errors
    /// It does not run, or failed.
    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        let _ = stop;
        Err(CallError::unsupported().into())
    }
}

/// Connects a plugin with a declared interface: finds its methods, counts its failures, and passes on its state. The last
/// step of a [`load`](crate::Backend::load):
///
/// ```
/// # use hotslot::host::{Contract, Interface, InterfaceLink, InterfacePlugin};
/// # use hotslot::{Artifact, BoxError, LoadContext, Loaded};
/// fn loaded<I: Interface + ?Sized>(
///     plugin: impl InterfacePlugin,
///     artifact: &Artifact,
///     context: &LoadContext,
/// ) -> Result<Loaded<I>, BoxError> {
///     // At admission already, where it refuses the plugin; the numbers are then the evidence.
///     let methods = Contract::of::<I>().methods_in_manifest(artifact.manifest())?;
///     Ok(Loaded::boxed(I::proxy(InterfaceLink::new(plugin, methods, context))))
/// }
/// ```
pub struct InterfaceLink<P> {
    plugin: P,
    /// The plugin's numbers of the host's methods.
    methods: MethodNumbers,
    failures: FailureCounter,
}

impl<P: InterfacePlugin> InterfaceLink<P> {
    /// Links a plugin whose contract has the host's methods at `methods`.
    pub fn new(plugin: P, methods: MethodNumbers, context: &LoadContext) -> InterfaceLink<P> {
        InterfaceLink { plugin, methods, failures: context.failures.clone() }
    }
}

impl<P: InterfacePlugin> Transport for InterfaceLink<P> {
    #[inline]
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let Some(number) = self.methods.get(method) else { return Err(CallError::unsupported()) };
        let unavailable = |refusal: Refusal| {
            CallError::new(CallErrorKind::Unavailable, format!("calls are nested too deeply: {refusal}"))
        };
        let _nested = Nested::enter_interface().map_err(unavailable)?;
        let watch = Watch::begin();
        let answer = self.plugin.invoke(number, arguments, words, read);
        match &answer {
            Err(error) if error.kind().is_fault() => match watch.refusal() {
                // It failed because a call that it made through the host was refused, and is not to blame.
                Some(refusal) if error.kind() == CallErrorKind::Panicked => return Err(unavailable(refusal)),
                _ => self.failures.report_failure(error),
            },
            _ => {}
        }
        answer
    }
}

impl<P: InterfacePlugin> Link for InterfaceLink<P> {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, BoxError> {
        Ok(self.plugin.save()?.map(|State { schema, bytes }| (schema, bytes)))
    }

    fn restore(&self, schema: &str, state: &[u8]) -> Result<(), BoxError> {
        self.plugin.restore(&State { schema: schema.to_owned(), bytes: state.to_vec() })
    }

    fn run(&self, stop: &Stop) -> Result<(), BoxError> {
        self.plugin.run(stop)
    }
}

impl<P> std::fmt::Debug for InterfaceLink<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InterfaceLink").field("methods", &self.methods).finish_non_exhaustive()
    }
}
