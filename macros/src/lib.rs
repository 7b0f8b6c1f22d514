//! The macros of [hotslot](https://docs.rs/hotslot): use them through `hotslot_plugin`, which documents them.

mod interface;
mod kind;
mod method;
mod plain;
mod version;

use proc_macro::TokenStream;

/// See `hotslot_plugin::interface`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    interface::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// See `hotslot_plugin::Plain`.
#[proc_macro_derive(Plain)]
pub fn plain(item: TokenStream) -> TokenStream {
    plain::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
