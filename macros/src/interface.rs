//! `#[interface]`: from a trait to its contract, the host's proxy and the plugin's dispatch.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, ItemTrait, LitStr, Path, Token, TraitItem, parse_quote};

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
                "version" => version = Some(Version::parse(&input.parse()?)?),
                "name" => name = Some(input.parse()?),
                "crate" => plugin = Some(input.call(Path::parse_mod_style)?),
                _ => return Err(Error::new(key.span(), "there are `version`, `name` and `crate`")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let version = version.ok_or_else(|| {
            Error::new(input.span(), "say which version of the interface this is: #[interface(version = \"1.0\")]")
        })?;
        Ok(Arguments { version, name, plugin: plugin.unwrap_or_else(|| parse_quote!(::hotslot_plugin)) })
    }
}

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let Arguments { version, name, plugin } = syn::parse2(arguments)?;
    let mut item: ItemTrait = syn::parse2(item)?;
    if let Some(parameter) = item.generics.params.first() {
        return Err(Error::new(parameter.span(), "an interface is one contract: it cannot be generic"));
    }
    if let Some(unsafety) = item.unsafety {
        return Err(Error::new(unsafety.span(), "an interface is called safely: leave `unsafe` out"));
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
    let arms = numbers.zip(&methods).map(|(number, method)| method.arm(number));
    let proxy = format_ident!("{ident}Proxy");
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
            use #plugin as plugin;
            use plugin::__private::{codec, contract};
            #[allow(unused_imports, reason = "only types of the user's need it")]
            use codec::ByPostcard as _;

            /// The plugin as the host sees it.
            struct #proxy<L>(L);

            impl<L: plugin::Transport> #ident for #proxy<L> {
                #(#proxies)*

                fn __link(&self) -> ::core::option::Option<&dyn plugin::Link> {
                    ::core::option::Option::Some(&self.0)
                }
            }

            impl plugin::Interface for dyn #ident {
                const NAME: &'static str = #name;
                const VERSION: (u32, u32) = (#major, #minor);
                const CONTRACT: &'static str =
                    contract::text!(&[contract::Part::Text(#title), #(#parts)*]);
                const ID: &'static str = contract::id!(#name, #major, #minor, &[#(#required)*]);

                fn proxy<L: plugin::Transport>(link: L) -> ::std::boxed::Box<Self> {
                    ::std::boxed::Box::new(#proxy(link))
                }

                fn link(&self) -> ::core::option::Option<&dyn plugin::Link> {
                    self.__link()
                }

                fn dispatch(
                    &self,
                    method: u32,
                    arguments: &mut plugin::Arguments<'_>,
                    answer: &mut plugin::Answer<'_>,
                ) -> ::core::result::Result<(), plugin::CallError> {
                    match method {
                        #(#arms)*
                        _ => ::core::result::Result::Err(plugin::CallError::unsupported()),
                    }
                }
            }
        };
    })
}

/// The methods, each understood, or all that is wrong with them.
fn methods(item: &mut ItemTrait, version: Version) -> Result<Vec<Method>, Error> {
    let mut methods = Vec::new();
    let mut wrong: Option<Error> = None;
    for member in std::mem::take(&mut item.items) {
        let method = match member {
            TraitItem::Fn(method) => Method::read(method, version),
            other => Err(Error::new(
                other.span(),
                "only methods cross an interface: leave constants and types to the crate that declares it",
            )),
        };
        match (method, &mut wrong) {
            (Ok(method), _) => methods.push(method),
            (Err(error), Some(earlier)) => earlier.combine(error),
            (Err(error), None) => wrong = Some(error),
        }
    }
    wrong.map_or(Ok(methods), Err)
}

/// `PriceFeed` is the interface `price-feed`.
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
        return Err(Error::new(name.span(), "a name is 1 to 48 lowercase letters, digits and dashes"));
    }
    Ok(text)
}
