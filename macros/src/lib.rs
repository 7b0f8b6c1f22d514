//! The macros of [hotslot](https://docs.rs/hotslot). Use them through `hotslot_plugin`, which documents them.

mod interface;
mod kind;
mod method;
mod plain;
mod schema;
mod version;

use proc_macro::TokenStream;

/// Declares an interface: a trait that plugins implement and hosts call, or, for a service, the reverse.
///
/// ```
/// use hotslot_plugin::{CallError, interface};
///
/// /// Quotes prices.
/// #[interface(version = "1.1")]
/// pub trait Pricer {
///     /// Returns the price of `quantity` units of `symbol`.
///     fn quote(&self, symbol: &str, quantity: u32) -> Result<f64, CallError>;
///
///     /// Returns whether it accepts orders now; `false` if the call fails.
///     #[on_error(false)]
///     fn is_open(&self) -> bool;
///
///     /// Added in 1.1: for an older plugin, this body runs in the host.
///     #[since("1.1")]
///     fn currency(&self) -> String {
///         "USD".to_owned()
///     }
/// }
/// ```
///
/// # Trait arguments
/// - `version = "1.1"`: major and minor. Within a major version, methods are only added.
/// - `name = "…"`: 1 to 48 lowercase letters, digits and dashes. The default is the trait's name: `PriceFeed` becomes
///   `price-feed`.
/// - `crate = path`: the path of `hotslot-plugin`, if it is not `::hotslot_plugin`.
///
/// # Method attributes
/// - `#[since("1.1")]`: the version that added the method. It needs a default body, and plugins may lack it.
/// - `#[on_error(value)]`: the value that a failed call returns. Without it, a method that returns `Result<_, E>` with
///   `E: From<CallError>` returns the error, and any other method unwinds with it.
/// - `#[repeatable]`: a call may be made a second time, on another plugin. A host that tries a plugin in the shadow of the
///   serving one copies the calls of these methods. It is no part of the contract.
///
/// A method takes `&self` and values that can cross: numbers, `bool`, `char`, `&str`, `&[u8]`, `String`, `Vec<u8>`, types
/// with `#[derive(Plain)]`, arrays and options of plain types, and, with the feature `postcard` of `hotslot-plugin`, serde
/// types with `#[derive(Schema)]`.
///
/// The macro adds the bounds `Send + Sync + 'static` to the trait, and implements `hotslot_plugin::Interface` for
/// `dyn Trait`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    interface::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Lets a struct of plain fields, or an enum without fields, cross as machine words: see the trait of the same name.
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

/// Describes a serde type for the contract: see the trait of the same name.
///
/// ```
/// use hotslot_plugin::Schema;
///
/// #[derive(Schema)] // and serde's Serialize and Deserialize
/// struct Quote {
///     bid: f64,
///     ask: f64,
///     #[schema(as = u64)] // what `with` writes
///     #[serde(with = "seconds")]
///     at: std::time::Instant,
/// }
///
/// assert_eq!(hotslot_plugin::schema_text!(Quote), "Quote{bid:f64,ask:f64,at:u64}");
/// ```
#[proc_macro_derive(Schema, attributes(schema, serde))]
pub fn schema(item: TokenStream) -> TokenStream {
    schema::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
