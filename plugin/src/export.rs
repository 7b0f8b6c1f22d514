//! The macro that makes a crate a plugin.

/// Exports a [`Plugin`](crate::Plugin): its descriptor and its panic-catching shims.
///
/// Name and version are those of the crate that the macro stands in; `name:` and `version:` replace them. After the
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
                    // SAFETY: the host passes an instance of this plugin and a place for the result.
                    unsafe {
                        $crate::shim::value(out, || {
                            <$plugin>::$function($crate::shim::this::<$plugin>(instance), $($argument),*)
                        })
                    }
                }
                abi::Function($function as *const ::std::ffi::c_void)
            },)*)?];

            #[used]
            #[unsafe(no_mangle)]
            #[cfg_attr(not(target_vendor = "apple"), unsafe(link_section = ".hotslot"))]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__hotslot"))]
            pub static HOTSLOT_PLUGIN: abi::Descriptor = abi::Descriptor {
                identity: abi::Identity {
                    magic: abi::MAGIC,
                    abi: abi::ABI_VERSION,
                    size: ::std::mem::size_of::<abi::Descriptor>() as u32,
                    panic: if cfg!(panic = "unwind") { abi::PANIC_UNWIND } else { abi::PANIC_ABORT },
                    function_count: FUNCTIONS.len() as u32,
                    name: abi::Text::new($name),
                    version: abi::Text::new($version),
                    interface: abi::Text::new(<$plugin as $crate::Plugin>::INTERFACE),
                    schema: abi::Text::new(<$plugin as $crate::Plugin>::SCHEMA),
                },
                create: $crate::shim::create::<$plugin>,
                destroy: $crate::shim::destroy::<$plugin>,
                run: $crate::shim::run::<$plugin>,
                call: $crate::shim::call::<$plugin>,
                save: $crate::shim::save::<$plugin>,
                restore: $crate::shim::restore::<$plugin>,
                functions: FUNCTIONS.as_ptr(),
            };
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
