//! The entries of a plugin's descriptor, for a type that implements [`Plugin`] and for one that only has a [`Default`].

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;

use crate::abi::{
    ABI_VERSION, Buffer, Descriptor, Function, HostApi, Identity, Invoke, MAGIC, Method, PANIC_ABORT, PANIC_UNWIND,
    Status, Text,
};
use crate::{Error, Host, Plugin, shim};

/// [`Descriptor::create`].
type Create = unsafe extern "C" fn(host: *const HostApi, instance: *mut *mut c_void, error: *mut Buffer) -> Status;

/// Makes a descriptor of `P` without its texts and functions.
const fn template<P: Plugin>(create: Create) -> Descriptor {
    Descriptor {
        identity: Identity {
            magic: MAGIC,
            abi: ABI_VERSION,
            size: size_of::<Descriptor>() as u32,
            panic: if cfg!(panic = "unwind") { PANIC_UNWIND } else { PANIC_ABORT },
            function_count: 0,
            name: Text::new(""),
            version: Text::new(""),
            interface: Text::new(""),
            schema: Text::new(P::SCHEMA),
        },
        create,
        destroy: shim::destroy::<P>,
        run: shim::run::<P>,
        call: shim::call::<P>,
        save: shim::save::<P>,
        restore: shim::restore::<P>,
        functions: ptr::null(),
    }
}

/// Adds them.
pub const fn named(
    template: Descriptor,
    name: &str,
    version: &str,
    interface: &str,
    functions: &'static [Function],
) -> Descriptor {
    let identity = Identity {
        function_count: functions.len() as u32,
        name: Text::new(name),
        version: Text::new(version),
        interface: Text::new(interface),
        ..template.identity
    };
    Descriptor { identity, functions: functions.as_ptr(), ..template }
}

/// The methods of an interface as functions over a plugin of the type `P`: the macro implements it for `dyn Trait`.
pub trait Methods<P> {
    const METHODS: &'static [Method];
}

/// Lists the functions of a plugin of an interface, `N` of them: the one for all methods, and one for each.
pub const fn functions<const N: usize>(invoke: Invoke, methods: &[Method]) -> [Function; N] {
    assert!(methods.len() + 1 == N, "there is one function for all methods, and one for each");
    let mut functions = [Function(invoke as *const c_void); N];
    let mut at = 1;
    while at < N {
        functions[at] = Function(methods[at - 1] as *const c_void);
        at += 1;
    }
    functions
}

/// Finds out at compile time what an author wrote: how it is made is the constant of this inherent implementation for a
/// [`Plugin`], and that of [`ByDefault`] for any other type.
pub struct Author<P>(PhantomData<P>);

/// A type that should be a [`Plugin`]. Whether it is one is asked of [`template_of`], where the compiler can say what is
/// missing.
pub struct Maker<P>(PhantomData<P>);

impl<P: Plugin> Author<P> {
    pub const MAKER: Maker<P> = Maker(PhantomData);
}

/// What a type has that is no [`Plugin`].
pub trait ByDefault<P> {
    const MAKER: Maker<DefaultPlugin<P>> = Maker(PhantomData);
}

impl<P> ByDefault<P> for Author<P> {}

/// Makes the descriptor without its texts and functions.
pub const fn template_of<P: Plugin>(_: Maker<P>) -> Descriptor {
    template::<P>(shim::create::<P>)
}

/// Makes the same for a process that has a panic hook of its own.
pub const fn in_process<P: Plugin>(_: Maker<P>) -> Descriptor {
    template::<P>(shim::create_in_process::<P>)
}

/// Returns the function that tells an instance of the type that it continues from a snapshot.
#[cfg(target_arch = "wasm32")]
pub const fn resume_of<P: Plugin>(_: Maker<P>) -> crate::guest::Resume {
    shim::resume::<P>
}

/// A type that is made by its default.
#[diagnostic::on_unimplemented(
    message = "a host cannot make a `{Self}`",
    label = "not a plugin",
    note = "implement `hotslot_plugin::Plugin` for it, whose `create` gets the host, or derive `Default`; it has to be \
            `Send` and `Sync`, too"
)]
pub trait Makeable: Send + Sync + 'static {
    fn make() -> Self;
}

#[diagnostic::do_not_recommend]
impl<P: Default + Send + Sync + 'static> Makeable for P {
    fn make() -> P {
        P::default()
    }
}

/// A type with a default, as a plugin that has no state and does not run. An instance of it is one of the type.
#[repr(transparent)]
pub struct DefaultPlugin<P>(P);

impl<P: Makeable> Plugin for DefaultPlugin<P> {
    const INTERFACE: &'static str = "";

    fn create(_: Host) -> Result<Self, Error> {
        Ok(DefaultPlugin(P::make()))
    }
}

/// Returns the schema in a descriptor.
#[cfg(target_arch = "wasm32")]
pub const fn schema(descriptor: &'static Descriptor) -> &'static str {
    let bytes = &descriptor.identity.schema.bytes;
    let mut length = 0;
    while bytes[length] != 0 {
        length += 1;
    }
    let (text, _) = bytes.split_at(length);
    match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(_) => panic!("it was made of a text"),
    }
}
