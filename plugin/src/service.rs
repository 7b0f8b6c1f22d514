//! Services of the host that a plugin calls: interfaces the other way round.

use crate::abi::{Buffer, Frame, HostApi, Slice, Status};
use crate::{Argument, CallError, CallErrorKind, Error, Host, Interface, Link, Malformed, Reply, Stop, Transport};

impl Host {
    /// Connects to the host's service `dyn Trait`, an [interface](macro@crate::interface) that the host implements and plugins call.
    ///
    /// Ask for it once, in [`create`](crate::Plugin::create): a service that is missing then refuses the plugin, which
    /// is the time to find out.
    ///
    /// # Errors
    /// The host does not offer it, or another version of it: the text says which method differs.
    pub fn service<I: Interface + ?Sized>(&self) -> Result<Box<I>, Error> {
        let api = self.api();
        if api.size < std::mem::offset_of!(HostApi, event) {
            return Err(format!("this host offers no services, and the plugin needs `{}`", I::ID).into());
        }
        let (mut number, mut error) = (0, Buffer::EMPTY);
        // SAFETY: H1: the context is the API's own. H2: the contract is a constant. H3: number and error live for the call.
        let status =
            unsafe { (api.service)(api.context, Slice::new(I::CONTRACT.as_bytes()), &raw mut number, &raw mut error) };
        // SAFETY: B1: it is empty or as the host filled it, and is taken once.
        let error = unsafe { error.take() };
        match status {
            Status::OK => Ok(I::proxy(Service { host: *self, number })),
            _ => Err(String::from_utf8_lossy(&error).into()),
        }
    }
}

/// A connection to one service.
struct Service {
    host: Host,
    number: u32,
}

impl Transport for Service {
    fn invoke<R>(
        &self,
        method: u32,
        arguments: &[Argument<'_>],
        words: &mut [u64],
        read: impl FnOnce(&mut Reply<'_>) -> Result<R, Malformed>,
    ) -> Result<R, CallError> {
        let api = self.host.api();
        let mut frame = Frame::new(arguments, words);
        // SAFETY: H1: the context is the API's own. H4: the frame and what it points to are lent for the call.
        let status = unsafe { (api.invoke)(api.context, self.number, method, &raw mut frame) };
        // SAFETY: arguments and words still live, and the frame was lent for the one call above.
        unsafe { frame.finish(status, read, |text| String::from_utf8_lossy(text).into_owned()) }
    }
}

/// A service has no life of its own: it is there as long as the host.
impl Link for Service {
    fn save(&self) -> Result<Option<(String, Vec<u8>)>, Error> {
        Ok(None)
    }

    fn restore(&self, _: &str, _: &[u8]) -> Result<(), Error> {
        Err(CallError::new(CallErrorKind::Unsupported, "a service of the host has no state to hand over").into())
    }

    fn run(&self, _: &Stop) -> Result<(), Error> {
        Err(CallError::new(CallErrorKind::Unsupported, "a service of the host is not run by a plugin").into())
    }
}
