//! The macros of [hotslot](https://docs.rs/hotslot): use them through `hotslot_plugin`, which documents them.

mod interface;
mod kind;
mod method;
mod plain;
mod version;

use proc_macro::TokenStream;

/// Declares an interface: a trait that plugins implement and hosts call, or, for a service, the other way round.
///
/// ```
/// use hotslot_plugin::{CallError, interface};
///
/// /// What prices are asked of.
/// #[interface(version = "1.1")]
/// pub trait Pricer {
///     /// What so many of it cost.
///     fn quote(&self, symbol: &str, quantity: u32) -> Result<f64, CallError>;
///
///     /// Whether it takes orders now; a call that fails says no.
///     #[on_error(false)]
///     fn is_open(&self) -> bool;
///
///     /// Came later: a host gets this from a plugin that does not have it.
///     #[since("1.1")]
///     fn currency(&self) -> String {
///         "USD".to_owned()
///     }
/// }
/// ```
///
/// # On the trait
/// - `version = "1.1"`: major and minor. Within a major version methods are only added.
/// - `name = "…"`: 1 to 48 lowercase letters, digits and dashes. That of the trait if it is not said: `PriceFeed` is
///   `price-feed`.
/// - `crate = path`: where `hotslot-plugin` is found, if not at `::hotslot_plugin`.
///
/// # On a method
/// - `#[since("1.1")]`: the version that it came with. It needs a body, and a plugin need not have it.
/// - `#[on_error(value)]`: what a call that failed gives. Without it, a method that returns `Result<_, E>` with
///   `E: From<CallError>` returns the error, and every other one unwinds with it.
///
/// A method takes `&self`, and values that can cross: numbers, `bool`, `char`, `&str`, `&[u8]`, `String`, `Vec<u8>`, types
/// with `#[derive(Plain)]`, arrays and options of plain ones, and, with the feature `postcard` of `hotslot-plugin`, whatever
/// serde reads and writes.
///
/// The trait gets the bounds `Send + Sync + 'static`, and `dyn Trait` an implementation of `hotslot_plugin::Interface`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    interface::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct of plain fields, or an enum without any, cross as machine words: see the trait of the same name.
///
/// ```
/// use hotslot_plugin::Plain;
///
/// #[derive(Clone, Copy, Plain)]
/// enum Side { Buy = 1, Sell = -1 }
///
/// #[derive(Clone, Copy, Plain)]
/// struct Order { side: Side, price: f64, quantity: [u32; 2] }
///
/// assert_eq!(Order::WORDS, 4);
/// ```
#[proc_macro_derive(Plain)]
pub fn plain(item: TokenStream) -> TokenStream {
    plain::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
