//! `#[interface]`: from a trait to its contract, the host's proxy and the plugin's dispatch.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemTrait, LitStr, Path, Token, TraitItem, TypeParamBound, parse_quote};

use crate::method::Method;
use crate::version::Version;

/// `version = "1.0"`, and what may follow it.
struct Arguments {
    version: Version,
    name: Option<LitStr>,
    plugin: Path,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Arguments, Error> {
        let (mut version, mut name, mut plugin) = (None, None, None);
        while !input.is_empty() {
            let key = input.call(<Ident as syn::ext::IdentExt>::parse_any)?;
            input.parse::<Token![=]>()?;
            match key.to_string().as_str() {
                "version" => version = Some(Version::of(&input.parse()?)?),
                "name" => name = Some(input.parse()?),
                "crate" => plugin = Some(input.call(Path::parse_mod_style)?),
                _ => return Err(Error::new(key.span(), "unknown argument: expected `version`, `name` or `crate`")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let version = version
            .ok_or_else(|| Error::new(input.span(), "missing version: write #[interface(version = \"1.0\")]"))?;
        Ok(Arguments { version, name, plugin: plugin.unwrap_or_else(|| parse_quote!(::hotslot_plugin)) })
    }
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let Arguments { version, name, plugin } = syn::parse2(arguments)?;
    let mut item: ItemTrait = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), format!("#[interface] declares a trait: {error}")))?;
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new(parameter.span(), "an interface is a single contract, so it cannot be generic"));
    }
    if let Some(bounds) = &item.generics.where_clause {
        return Err(Error::new_spanned(bounds, "an interface cannot have a `where` clause: remove it"));
    }
    if let Some(other) = item.supertraits.iter().find(|bound| !is_marker(bound)) {
        return Err(Error::new_spanned(other, "methods of a supertrait do not cross: declare them here, or remove it"));
    }
    if let Some(unsafety) = item.unsafety {
        return Err(Error::new(unsafety.span(), "an interface is safe to call: remove `unsafe`"));
    }
    let methods = methods(&mut item, version)?;
    let name = match name {
        Some(name) => checked(&name)?,
        None => dashed(&item.ident.to_string()),
    };

    let ItemTrait { attrs, vis, ident, supertraits, .. } = &item;
    let supertraits = supertraits.iter();
    let declarations = methods.iter().map(Method::declaration);
    let title = format!("interface {name} {version}\n");
    let (major, minor) = (version.major, version.minor);
    let parts = methods.iter().map(Method::parts);
    let required = methods.iter().filter(|method| !method.is_later()).map(Method::parts);
    let numbers = 0u32..;
    let proxies = numbers.clone().zip(&methods).map(|(number, method)| method.proxy(number));
    let served = numbers.clone().zip(&methods).map(|(number, method)| method.serve(number, ident));
    let (of_each, of_plugins) = (numbers.clone().take(methods.len()), numbers.take(methods.len()));
    let proxy = format_ident!("__{ident}Proxy");
    let dispatch = quote_spanned! {Span::mixed_site()=>
        fn dispatch(
            &self,
            method: u32,
            arguments: &mut __plugin::Arguments<'_>,
            answer: &mut __plugin::Answer<'_>,
        ) -> ::core::result::Result<(), __plugin::CallError> {
            match method {
                #( #of_each => <Self as __plugin::__private::Serve<Self, #of_each>>::serve(self, arguments, answer), )*
                _ => ::core::result::Result::Err(__plugin::CallError::unsupported()),
            }
        }
    };
    Ok(quote! {
        #(#attrs)*
        #vis trait #ident: #(#supertraits +)* ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#declarations)*
            #[doc(hidden)]
            fn __link(&self) -> ::core::option::Option<&dyn #plugin::Link> {
                ::core::option::Option::None
            }
        }

        const _: () = {
            use #plugin as __plugin;
            use __plugin::__private::{codec as __codec, contract as __contract};
            #[allow(unused_imports, reason = "only types of the user's need it")]
            use __codec::{ByPostcard as _, Undescribed as _};

            const _: () = ::core::assert!(
                <dyn #ident as __plugin::Interface>::CONTRACT.len() <= __contract::LIMIT,
                "the contract is larger than the 64 KiB that a host reads: use fewer or smaller types, or bytes"
            );

            /// The plugin as the host sees it.
            struct #proxy<__L>(__L);

            #[diagnostic::do_not_recommend]
            impl<__L: __plugin::Transport> #ident for #proxy<__L> {
                #(#proxies)*

                fn __link(&self) -> ::core::option::Option<&dyn __plugin::Link> {
                    ::core::option::Option::Some(&self.0)
                }
            }

            #(#served)*

            impl<__P: #ident> __plugin::__private::Methods<__P> for dyn #ident {
                const METHODS: &'static [__plugin::abi::Method] =
                    &[#( __plugin::__private::method::<__P, dyn #ident, #of_plugins>, )*];
            }

            impl __plugin::Interface for dyn #ident {
                const NAME: &'static str = #name;
                const VERSION: (u32, u32) = (#major, #minor);
                const CONTRACT: &'static str =
                    __contract::text!(&[__contract::Part::Text(#title), #(#parts)*]);
                const ID: &'static str = __contract::id!(#name, #major, #minor, &[#(#required)*]);

                fn proxy<L: __plugin::Transport>(link: L) -> ::std::boxed::Box<Self> {
                    ::std::boxed::Box::new(#proxy(link))
                }

                fn link(&self) -> ::core::option::Option<&dyn __plugin::Link> {
                    self.__link()
                }

                #dispatch
            }
        };
    })
}

/// Reads the methods, or returns all that is wrong with them.
fn methods(item: &mut ItemTrait, version: Version) -> Result<Vec<Method>, Error> {
    let mut methods = Vec::new();
    let mut names = Vec::new();
    let mut wrong: Option<Error> = None;
    for member in std::mem::take(&mut item.items) {
        let name = match &member {
            TraitItem::Fn(method) => Some(method.sig.ident.clone()),
            _ => None,
        };
        let method = match member {
            TraitItem::Fn(method) if names.contains(&method.sig.ident) => Err(Error::new(
                method.sig.ident.span(),
                "duplicate method name: methods are found by name, so a changed method needs a new one",
            )),
            TraitItem::Fn(method) => Method::read(method, version),
            other => Err(Error::new_spanned(
                other,
                "only methods cross an interface: move constants and types out of the trait",
            )),
        };
        names.extend(name);
        match (method, &mut wrong) {
            (Ok(method), _) => methods.push(method),
            (Err(error), Some(earlier)) => earlier.combine(error),
            (Err(error), None) => wrong = Some(error),
        }
    }
    wrong.map_or(Ok(methods), Err)
}

/// Returns whether a bound asks for no method.
fn is_marker(bound: &TypeParamBound) -> bool {
    const MARKERS: [&str; 5] = ["Send", "Sync", "Unpin", "UnwindSafe", "RefUnwindSafe"];
    match bound {
        TypeParamBound::Trait(bound) => {
            bound.path.segments.last().is_some_and(|last| MARKERS.iter().any(|marker| last.ident == marker))
        }
        _ => true,
    }
}

/// Names an interface after its trait: `PriceFeed` is `price-feed`.
fn dashed(name: &str) -> String {
    let mut dashed = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !dashed.is_empty() {
            dashed.push('-');
        }
        dashed.extend(character.to_lowercase());
    }
    dashed
}

fn checked(name: &LitStr) -> Result<String, Error> {
    let text = name.value();
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 48 || !text.bytes().all(allowed) {
        return Err(Error::new(name.span(), "a name must be 1 to 48 lowercase letters, digits and dashes"));
    }
    Ok(text)
}
