//! Services: interfaces that the host implements and plugins call.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hotslot_plugin::{Answer, Argument, Arguments, CallError, CallErrorKind, Interface};

use super::contract::{Contract, ContractError, MethodNumbers};
use crate::PluginScope;
use crate::text::panic_text;

/// The services of one backend's host.
#[derive(Clone, Default)]
pub(crate) struct Services {
    all: Vec<Arc<Service>>,
    /// Whatever is asked for is found, and has no methods.
    is_stand_in: bool,
}

/// A service with its contract.
struct Service {
    contract: Contract,
    target: Box<dyn Dispatch>,
}

/// An implementation with its interface forgotten.
trait Dispatch: Send + Sync {
    fn dispatch(&self, method: u32, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError>;
}

struct Target<I: ?Sized>(Arc<I>);

impl<I: Interface + ?Sized> Dispatch for Target<I> {
    fn dispatch(&self, method: u32, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError> {
        self.0.dispatch(method, arguments, answer)
    }
}

impl Services {
    /// Claims to have every service, without any method.
    #[cfg(feature = "native")]
    pub(super) fn stand_in() -> Services {
        Services { all: Vec::new(), is_stand_in: true }
    }

    /// Offers one more; one of the same name and major version is replaced.
    pub(crate) fn offer<I: Interface + ?Sized>(&mut self, service: Arc<I>) {
        let contract = Contract::of::<I>();
        self.all.retain(|known| known.contract.name != contract.name || known.contract.version.0 != contract.version.0);
        self.all.push(Arc::new(Service { contract, target: Box::new(Target(service)) }));
    }

    /// Finds the service that a plugin asks for with its own contract of it.
    pub(crate) fn bind(&self, asked: &[u8], scope: &PluginScope) -> Result<BoundService, ContractError> {
        let scope = scope.clone();
        if self.is_stand_in {
            return Ok(BoundService { service: None, numbers: MethodNumbers::default(), scope });
        }
        let asked = Contract::parse(asked)?;
        let of_that_name = |service: &&Arc<Service>| service.contract.name == asked.name;
        // The one whose version fits, or else the one that can say why not.
        let found = self.all.iter().filter(of_that_name);
        let found = found.max_by_key(|service| service.contract.version.0 == asked.version.0);
        let Some(service) = found else {
            let host = self.all.iter().map(|service| service.contract.name.as_str()).collect::<Vec<_>>().join("`, `");
            let host = if host.is_empty() { "none".to_owned() } else { host };
            return Err(ContractError::Service { plugin: asked.name, host });
        };
        let numbers = asked.methods_in_service(&service.contract)?;
        Ok(BoundService { service: Some(Arc::clone(service)), numbers, scope })
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|service| &service.contract.name)).finish()
    }
}

/// A service of the host as one plugin knows it. See [`PluginHost::service`](super::PluginHost::service).
pub struct BoundService {
    service: Option<Arc<Service>>,
    /// The host's numbers of the plugin's methods.
    numbers: MethodNumbers,
    scope: PluginScope,
}

impl BoundService {
    /// Calls a method, by the number that the plugin's contract of the service gives it. Fills `words`, and returns the
    /// bytes of the answer.
    ///
    /// # Errors
    /// The host does not have the method, the arguments are not its own, or it failed. A panic of the host's code stays
    /// here: it is logged, and is an error for the plugin.
    pub fn call(&self, method: u32, arguments: &[Argument<'_>], words: &mut [u64]) -> Result<Vec<u8>, CallError> {
        let (Some(service), Some(number)) = (&self.service, self.numbers.get(method)) else {
            return Err(CallError::new(CallErrorKind::Unsupported, "the host does not have this"));
        };
        self.scope.enter(|| {
            let mut answer = Answer::new(words);
            let call =
                AssertUnwindSafe(|| service.target.dispatch(number, &mut Arguments::new(arguments), &mut answer));
            match catch_unwind(call) {
                Ok(outcome) => outcome.map(|()| answer.into_bytes()),
                Err(panic) => {
                    let (what, service) = (panic_text(panic), &service.contract.name);
                    tracing::error!(service, "a service of the host panicked: {what}");
                    let text = format!("the host's service `{service}` panicked: {what}");
                    Err(CallError::new(CallErrorKind::Panicked, text))
                }
            }
        })
    }
}

impl fmt::Debug for BoundService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.service.as_ref().map(|service| &service.contract.name);
        f.debug_struct("BoundService").field("service", &name).finish_non_exhaustive()
    }
}
