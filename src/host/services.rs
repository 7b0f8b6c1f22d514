//! Services: interfaces that the host implements and plugins call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hotslot_plugin::{Answer, Argument, Arguments, CallError, CallErrorKind, Interface};

use super::contract::{Contract, ContractError, Numbers};
use crate::text::panic_text;

/// What a host offers to the plugins of one backend.
#[derive(Clone, Default)]
pub(crate) struct Services(Vec<Arc<Offered>>);

struct Offered {
    contract: Contract,
    service: Box<dyn Serve>,
}

/// A service with its interface forgotten.
trait Serve: Send + Sync {
    fn dispatch(&self, method: u32, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError>;
}

struct Served<I: ?Sized>(Arc<I>);

impl<I: Interface + ?Sized> Serve for Served<I> {
    fn dispatch(&self, method: u32, arguments: &mut Arguments<'_>, answer: &mut Answer<'_>) -> Result<(), CallError> {
        self.0.dispatch(method, arguments, answer)
    }
}

impl Services {
    /// Offers one more; one of the same name and major version is replaced.
    pub(crate) fn offer<I: Interface + ?Sized>(&mut self, service: Arc<I>) {
        let contract = Contract::of::<I>();
        let is_another = |offered: &Arc<Offered>| {
            offered.contract.name != contract.name || offered.contract.version.0 != contract.version.0
        };
        self.0.retain(is_another);
        self.0.push(Arc::new(Offered { contract, service: Box::new(Served(service)) }));
    }

    /// The service that a plugin asks for with its own contract of it.
    pub(crate) fn bind(&self, asked: &[u8]) -> Result<Bound, ContractError> {
        let asked = Contract::parse(asked)?;
        let of_that_name = |offered: &&Arc<Offered>| offered.contract.name == asked.name;
        // The one whose version fits, or else the one that can say why not.
        let found = self.0.iter().filter(of_that_name);
        let found = found.max_by_key(|offered| offered.contract.version.0 == asked.version.0);
        let Some(offered) = found else {
            let host = self.0.iter().map(|offered| offered.contract.name.as_str()).collect::<Vec<_>>().join("`, `");
            let host = if host.is_empty() { "none".to_owned() } else { host };
            return Err(ContractError::Service { plugin: asked.name, host });
        };
        let numbers = asked.numbers_in(&offered.contract)?;
        Ok(Bound { offered: Arc::clone(offered), numbers })
    }
}

/// A service as one plugin knows it.
pub(crate) struct Bound {
    offered: Arc<Offered>,
    numbers: Numbers,
}

impl Bound {
    /// Calls a method, by the plugin's number of it. A panic of the host's code stays here.
    pub(crate) fn call(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
    ) -> Result<Vec<u8>, CallError> {
        let number = usize::try_from(method).ok().and_then(|at| *self.numbers.get(at)?);
        let number = number.ok_or_else(|| CallError::new(CallErrorKind::Unsupported, "the host does not have this"))?;
        let mut answer = Answer::new(words);
        let call =
            AssertUnwindSafe(|| self.offered.service.dispatch(number, &mut Arguments::new(arguments), &mut answer));
        match catch_unwind(call) {
            Ok(outcome) => outcome.map(|()| answer.into_bytes()),
            Err(panic) => {
                let (what, service) = (panic_text(panic), &self.offered.contract.name);
                tracing::error!(service, "a service of the host panicked: {what}");
                Err(CallError::new(CallErrorKind::Panicked, format!("the host's service `{service}` panicked: {what}")))
            }
        }
    }
}
