//! What may be sent to other threads and used by several of them: every type of which the docs say so.

use hotslot::host::{BoundService, CallError, Contract, ContractError, MethodNumbers, Offers, PluginHost, PluginInfo};
#[cfg(feature = "native")]
use hotslot::native::{Library, Native, NativePlugin, RawNative};
use hotslot::{Auto, Backend, BoxError, KeepAlive, PluginScope, StopSignal};
#[cfg(feature = "native")]
use hotslot::{Inspection, host::InterfaceLink};
use hotslot_fixture_interface::v1_0::Fixture;
use hotslot_plugin::abi;

fn is_send<T: Send + ?Sized>() {}
fn is_sync<T: Sync + ?Sized>() {}
fn is_both<T: Send + Sync + ?Sized>() {
    is_send::<T>();
    is_sync::<T>();
}

#[test]
fn what_the_host_has_goes_to_any_thread() {
    is_both::<Auto<dyn Fixture>>();
    is_both::<dyn Backend<dyn Fixture>>();
    is_both::<dyn KeepAlive>();
    is_both::<dyn Fixture>();
    is_both::<Offers>();
    is_both::<PluginHost>();
    is_both::<PluginInfo>();
    is_both::<BoundService>();
    is_both::<PluginScope>();
    is_both::<StopSignal>();
    is_both::<Contract>();
    is_both::<ContractError>();
    is_both::<MethodNumbers>();
    is_both::<CallError>();
    is_both::<BoxError>();
}

#[cfg(feature = "native")]
#[test]
fn what_a_library_is_to_the_host_does_too() {
    is_both::<Native>();
    is_both::<Native<dyn Fixture>>();
    // Whatever the binder of a raw library makes.
    is_both::<RawNative<std::cell::Cell<*const u8>>>();
    is_both::<NativePlugin>();
    is_both::<InterfaceLink<NativePlugin>>();
    is_both::<Library>();
    is_both::<Inspection>();
}

#[test]
fn what_a_plugin_has_does_too() {
    is_both::<hotslot_plugin::Host>();
    is_both::<hotslot_plugin::Stop>();
    is_both::<hotslot_plugin::CallError>();
    is_both::<hotslot_plugin::HarnessPlugin<dyn Fixture>>();
    is_both::<abi::HostApi>();
    is_both::<abi::Function>();
    // A descriptor is a static.
    is_sync::<abi::Descriptor>();
    is_sync::<abi::InterfaceDescriptor<8>>();
}
