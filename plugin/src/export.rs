//! The macro that makes a crate a plugin.

/// Exports a plugin of a declared [interface](macro@crate::interface): as a library or, compiled for wasm32, as a module.
///
/// `export!(Type as Interface)` takes a type that implements the interface's trait. It is made by its
/// [`Plugin::create`](crate::Plugin::create) if it is a [`Plugin`](crate::Plugin), and by its [`Default`] if not. Name and
/// version are those of the crate that the macro stands in; `name:` and `version:` replace them, as in
/// `export!(Type as Interface, name: "rules", version: "1.2.0")`.
///
/// ```
/// use hotslot_plugin::{export, interface};
///
/// #[interface(version = "1.0")] // in a crate that host and plugin share
/// pub trait Pricer {
///     fn quote(&self, symbol: &str, quantity: u32) -> f64;
/// }
///
/// #[derive(Default)]
/// struct Fixed;
///
/// impl Pricer for Fixed {
///     fn quote(&self, _: &str, quantity: u32) -> f64 { 142.5 * f64::from(quantity) }
/// }
///
/// export!(Fixed as Pricer);
/// # fn main() {}
/// ```
///
/// # The raw layer
/// `export!(Type)` takes a [`Plugin`](crate::Plugin) that names its interface itself, for hosts that speak the
/// [C ABI](crate::abi) directly. Name and version are those of the crate that the macro stands in; `name:` and `version:` replace them. After the
/// type, an interface may list functions that the host resolves once and calls directly. Each becomes an entry
/// `extern "C" fn(instance, arguments…, out: *mut Result) -> Status` of the function table, in the order written; their
/// arguments and results must be [`Crossing`](crate::shim::Crossing).
///
/// ```
/// # use hotslot_plugin::{Error, Host, Plugin};
/// struct Pricer;
///
/// impl Plugin for Pricer {
///     const INTERFACE: &'static str = "pricer/1";
///     fn create(_: Host) -> Result<Self, Error> { Ok(Pricer) }
/// }
///
/// impl Pricer {
///     fn quote(&self, quantity: i64) -> i64 { quantity * 100 }
/// }
///
/// hotslot_plugin::export! {
///     Pricer, name: "pricer", version: "1.2.0";
///     fn quote(quantity: i64) -> i64;
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ty as $interface:path $(,)?) => {
        $crate::export!(
            $plugin as $interface, name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION")
        );
    };
    ($plugin:ty as $interface:path, name: $name:expr, version: $version:expr $(,)?) => {
        const _: () = {
            use $crate::__private::{Author, ByDefault as _, Methods, functions, named, template_of};
            use $crate::abi;

            const METHODS: &[abi::Method] = <dyn $interface as Methods<$plugin>>::METHODS;

            unsafe extern "C" fn invoke(
                instance: *const ::std::ffi::c_void,
                method: u32,
                frame: *mut abi::Frame,
            ) -> abi::Status {
                // SAFETY: P2: the instance is one of this plugin, and lives. P4: the frame is lent for the call.
                unsafe { $crate::shim::invoke(METHODS, instance, method, frame) }
            }

            const ID: &str = <dyn $interface as $crate::Interface>::ID;
            const CONTRACT: &str = <dyn $interface as $crate::Interface>::CONTRACT;
            const FUNCTIONS: &[abi::Function] = &functions::<{ METHODS.len() + 1 }>(invoke, METHODS);
            const DESCRIPTOR: abi::Descriptor =
                named(template_of(Author::<$plugin>::MAKER), $name, $version, ID, FUNCTIONS);

            $crate::__descriptor! {
                abi::InterfaceDescriptor<{ CONTRACT.len() }> = abi::InterfaceDescriptor::new(DESCRIPTOR, CONTRACT);
            }
            $crate::__module!($plugin, DESCRIPTOR, CONTRACT, ID, invoke, $name, $version);
        };
    };
    ($plugin:ty $(; $($functions:tt)*)?) => {
        $crate::export!($plugin, name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION"); $($($functions)*)?);
    };
    ($plugin:ty, name: $name:expr, version: $version:expr $(;
        $( fn $function:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)?; )*
    )?) => {
        const _: () = {
            use $crate::abi;

            const FUNCTIONS: &[abi::Function] = &[$($({
                unsafe extern "C" fn $function(
                    instance: *const ::std::ffi::c_void,
                    $($argument: $kind,)*
                    out: *mut $crate::__result!($($result)?),
                ) -> abi::Status {
                    const fn crossing<T: $crate::shim::Crossing>() {}
                    const { $(crossing::<$kind>();)* crossing::<$crate::__result!($($result)?)>() };
                    // SAFETY: P2: the instance is one of this plugin, and lives. P5: the result is valid for one write.
                    unsafe {
                        $crate::shim::value(out, || {
                            <$plugin>::$function($crate::shim::this::<$plugin>(instance), $($argument),*)
                        })
                    }
                }
                abi::Function($function as *const ::std::ffi::c_void)
            },)*)?];

            $crate::__descriptor! {
                abi::Descriptor = $crate::__private::named(
                    $crate::__private::template_of($crate::__private::Author::<$plugin>::MAKER),
                    $name,
                    $version,
                    <$plugin as $crate::Plugin>::INTERFACE,
                    FUNCTIONS,
                );
            }
        };
    };
}

/// The descriptor where a host looks for it. A module has none: what it says of itself is in its custom sections.
#[doc(hidden)]
#[macro_export]
macro_rules! __descriptor {
    ($kind:ty = $value:expr;) => {
        #[cfg(not(target_arch = "wasm32"))]
        #[used]
        #[unsafe(no_mangle)]
        #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".hotslot"))]
        #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__hotslot"))]
        pub static HOTSLOT_PLUGIN: $kind = $value;
    };
}

/// What a module exports and says of itself.
#[doc(hidden)]
#[macro_export]
#[cfg(not(target_arch = "wasm32"))]
macro_rules! __module {
    ($($nothing:tt)*) => {};
}

/// What a module exports and says of itself.
#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "wasm32")]
macro_rules! __module {
    ($plugin:ty, $descriptor:expr, $contract:expr, $id:expr, $invoke:ident, $name:expr, $version:expr) => {
        static DESCRIPTOR_OF_MODULE: $crate::abi::Descriptor = $descriptor;
        // SAFETY: only the exports below use it.
        static GUEST: $crate::__private::Guest = unsafe { $crate::__private::Guest::new() };

        $crate::__section!("version" = $version);
        $crate::__section!("hotslot.contract" = $contract);
        $crate::__section!(
            "hotslot.manifest" = {
                use $crate::__private::contract::{self, Part::Text};
                const SCHEMA: &str = $crate::__private::schema(&$descriptor);
                const KEY: &str = if SCHEMA.is_empty() { "" } else { "\nschema=" };
                contract::text!(
                    &[Text("name="), Text($name), Text("\ninterface="), Text($id), Text(KEY), Text(SCHEMA),]
                )
            }
        );

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_create(len: usize) -> u64 {
            GUEST.create(&DESCRIPTOR_OF_MODULE, len)
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_room(len: usize) -> *mut u64 {
            GUEST.room(len)
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_invoke(method: u32, frame: *mut $crate::abi::Frame) -> i32 {
            GUEST.invoke($invoke, method, frame).0
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_give(len: usize) -> *mut u8 {
            $crate::__private::give(len)
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_run() -> u64 {
            GUEST.run(&DESCRIPTOR_OF_MODULE)
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_resume() -> u64 {
            GUEST.resume($crate::__private::resume_of($crate::__private::Author::<$plugin>::MAKER))
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_save() -> u64 {
            GUEST.save(&DESCRIPTOR_OF_MODULE)
        }

        #[unsafe(no_mangle)]
        extern "C" fn hotslot_alloc(len: usize) -> *mut u8 {
            GUEST.alloc(len)
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn hotslot_restore(data: *const u8, schema: usize, state: usize) -> u64 {
            // SAFETY: the host of modules writes both into what `hotslot_alloc` gave.
            unsafe { GUEST.restore(&DESCRIPTOR_OF_MODULE, data, schema, state) }
        }
    };
}

/// A custom section of a module.
#[doc(hidden)]
#[macro_export]
#[cfg(target_arch = "wasm32")]
macro_rules! __section {
    ($name:literal = $text:expr) => {
        const _: () = {
            const TEXT: &str = $text;
            #[used]
            #[unsafe(link_section = $name)]
            static SECTION: [u8; TEXT.len()] = $crate::__private::contract::bytes(TEXT);
        };
    };
}

/// The result type of an exported function: what was written, or `()`.
#[doc(hidden)]
#[macro_export]
macro_rules! __result {
    () => {
        ()
    };
    ($result:ty) => {
        $result
    };
}
