//! One method of an interface: what it looks like on the trait, in the host's proxy and in the plugin's dispatch.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Block, Error, Expr, FnArg, Lit, Meta, Pat, ReturnType, Token, TraitItemFn, Type};

use crate::kind::{Kind, bare, generics};
use crate::version::Version;

/// A method that is understood.
pub(crate) struct Method {
    item: TraitItemFn,
    /// As the author wrote it: in a trait that a macro wrote, another one would not be found.
    this: Token![self],
    parameters: Vec<Parameter>,
    result: Kind,
    since: Option<Version>,
    on_error: Option<Expr>,
    /// A call may be made twice: on the plugin that serves, and on one that is tried.
    is_repeatable: bool,
}

struct Parameter {
    name: Ident,
    kind: Kind,
    is_lent: bool,
    /// What the plugin's side takes: the type without its `&`, unless it is lent there, too.
    taken: Type,
}

impl Method {
    pub(crate) fn read(mut item: TraitItemFn, version: Version) -> Result<Method, Error> {
        let signature = &item.sig;
        if let Some(asyncness) = signature.asyncness {
            return Err(Error::new(
                asyncness.span(),
                "a call into a plugin is synchronous, because host and plugin have executors of their own: leave `async` \
                 out, and block on the plugin's side or call from a thread that may wait",
            ));
        }
        if let Some(parameter) = signature.generics.params.first() {
            return Err(Error::new(
                parameter.span(),
                "host and plugin are compiled separately, so a method of an interface cannot be generic",
            ));
        }
        if let Some(bounds) = &signature.generics.where_clause {
            return Err(Error::new_spanned(bounds, "a method of an interface cannot have a `where` clause: remove it"));
        }
        if let syn::Safety::Unsafe(unsafety) = &signature.safety {
            return Err(Error::new(unsafety.span(), "an interface is safe to call: remove `unsafe`"));
        }
        if let Some(abi) = &signature.abi {
            return Err(Error::new_spanned(abi, "the interface decides how a method is called: remove the ABI"));
        }
        if let Some(cfg) = item.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            return Err(Error::new_spanned(
                cfg,
                "a contract must be the same in every build: remove the condition, or move it into the body",
            ));
        }
        if let Some(variadic) = &signature.variadic {
            return Err(Error::new(variadic.span(), "a method of an interface has a fixed number of parameters"));
        }
        let mut inputs = signature.inputs.iter();
        let this = match inputs.next() {
            Some(FnArg::Receiver(receiver)) if is_shared(receiver) => receiver.self_token,
            Some(FnArg::Receiver(receiver)) => {
                return Err(Error::new_spanned(
                    receiver,
                    "several callers use a plugin at the same time: take `&self`, and put what changes behind an atomic \
                     or a lock",
                ));
            }
            _ => {
                return Err(Error::new(
                    signature.ident.span(),
                    "a method of an interface is called on a plugin: take `&self`",
                ));
            }
        };
        let parameters = inputs.map(Parameter::read).collect::<Result<_, _>>()?;
        let result = match &signature.output {
            ReturnType::Default => Kind::Unit,
            ReturnType::Type(_, ty) => Kind::of_result(ty)?,
        };
        let since = take(&mut item.attrs, "since")?.map(|meta| since(&meta, version)).transpose()?;
        if let (Some(_), None) = (since, &item.default) {
            return Err(Error::new(
                item.sig.ident.span(),
                "a method with `#[since]` needs a default body, for plugins that do not have it yet",
            ));
        }
        let on_error = take(&mut item.attrs, "on_error")?.map(|meta| on_error(&meta)).transpose()?;
        if let (Some(_), Kind::Fallible(_)) = (&on_error, &result) {
            return Err(Error::new_spanned(
                &on_error,
                "this method already returns the error of a call: remove `#[on_error]`",
            ));
        }
        let is_repeatable = take(&mut item.attrs, "repeatable")?.map(|meta| repeatable(&meta)).transpose()?.is_some();
        Ok(Method { item, this, parameters, result, since, on_error, is_repeatable })
    }

    pub(crate) fn is_later(&self) -> bool {
        self.since.is_some()
    }

    /// Writes it in the trait.
    pub(crate) fn declaration(&self) -> TokenStream {
        let mut item = self.item.clone();
        // A proxy has to reach the body although it overrides the method.
        let (true, Some(body)) = (self.is_later(), item.default.take()) else { return quote!(#item) };
        let (default, this, names) = (self.default_name(), &self.this, self.names());
        let mut signature = item.sig.clone();
        signature.ident = default.clone();
        item.default = Some(syn::parse_quote!({ #this.#default(#(#names),*) }));
        let body: Block = body;
        quote! {
            #item
            #[doc(hidden)]
            #signature #body
        }
    }

    /// Returns it as parts of the contract's text.
    pub(crate) fn parts(&self) -> TokenStream {
        let start = match self.since {
            None => format!("method {}(", self.item.sig.ident),
            Some(since) => format!("since {since} {}(", self.item.sig.ident),
        };
        let parameters = self.parameters.iter().enumerate().map(|(at, parameter)| {
            let parts = parameter.kind.parts();
            let comma = (at > 0).then(|| quote!(__contract::Part::Text(","),));
            // Whether a value of the user's is lent makes no difference to what goes over.
            quote!(#comma #parts)
        });
        let result = self.result.parts();
        quote! {
            __contract::Part::Text(#start), #(#parameters)* __contract::Part::Text(")->"), #result
            __contract::Part::Text("\n"),
        }
    }

    /// Writes it in the host's proxy, which reaches the plugin through `self.0`.
    pub(crate) fn proxy(&self, number: u32) -> TokenStream {
        // The author's names of parameters are not those of this code.
        let site = Span::mixed_site();
        let signature = &self.item.sig;
        let (this, value) = (&self.this, self.value_type());
        let names: Vec<_> = self.names().collect();
        let codecs: Vec<_> = self.parameters.iter().map(|parameter| parameter.kind.codec()).collect();
        let slots = self.parameters.iter().map(|parameter| parameter.kind.slots());
        let held: Vec<_> = (0..names.len()).map(|at| Ident::new(&format!("held_{at}"), site)).collect();
        let lent: Vec<_> = self
            .parameters
            .iter()
            .map(|Parameter { name, is_lent, .. }| if *is_lent { quote!(#name) } else { quote!(&#name) })
            .collect();
        let words = self.result.words();
        let codec = self.result.codec();
        let failed = match (&self.result, &self.on_error) {
            (Kind::Fallible(_), _) => quote_spanned!(site=> ::core::result::Result::Err(error)),
            (_, Some(value)) => quote_spanned!(site=> {
                let _ = error;
                #value
            }),
            (Kind::Result(..), None) => {
                let error = self.error_type();
                quote_spanned!(site.located_at(error.span())=>
                    ::core::result::Result::Err(<#error as __codec::OfCall>::of_call(error))
                )
            }
            _ => quote_spanned!(site=> error.unwind()),
        };
        let succeeded = match &self.result {
            Kind::Fallible(_) => quote_spanned!(site=> ::core::result::Result::Ok(answer)),
            _ => quote_spanned!(site=> answer),
        };
        let invoke = match self.is_repeatable {
            true => quote_spanned!(site=> invoke_repeatable),
            false => quote_spanned!(site=> invoke),
        };
        let or_default = self.is_later().then(|| {
            let default = self.default_name();
            quote_spanned! {site=>
                ::core::result::Result::Err(error) if error.kind() == __plugin::CallErrorKind::Unsupported => {
                    #this.#default(#(#names),*)
                }
            }
        });
        quote_spanned! {site=>
            #[inline]
            #signature {
                let answer = 'call: {
                    #(
                        let #held = match __codec::Lend::hold(&#codecs, #lent) {
                            ::core::result::Result::Ok(held) => held,
                            ::core::result::Result::Err(error) => break 'call ::core::result::Result::Err(error),
                        };
                    )*
                    let mut lent = __codec::ArgumentList::<{ 0 #(+ #slots)* }>::new();
                    #( __codec::Lend::lend(&#codecs, #lent, &#held, &mut lent); )*
                    let mut words = [0; #words];
                    __plugin::Transport::#invoke(&#this.0, #number, lent.arguments(), &mut words, |answer| {
                        __codec::Codec::<#value>::receive(&#codec, answer)
                    })
                };
                match answer {
                    ::core::result::Result::Ok(answer) => #succeeded,
                    #or_default
                    ::core::result::Result::Err(error) => #failed,
                }
            }
        }
    }

    /// Writes it for the plugin's side: an implementation of `Serve` for its number, for whatever implements `interface`.
    pub(crate) fn serve(&self, number: u32, interface: &Ident) -> TokenStream {
        let site = Span::mixed_site();
        let name = &self.item.sig.ident;
        let names: Vec<_> = self.names().collect();
        let codecs = self.parameters.iter().map(|parameter| parameter.kind.codec());
        let types = self.parameters.iter().map(|parameter| &parameter.taken);
        let passed = self.parameters.iter().map(|Parameter { name, kind, is_lent, .. }| {
            let is_owned_here = *is_lent && !matches!(kind, Kind::Text | Kind::Bytes);
            if is_owned_here { quote!(&#name) } else { quote!(#name) }
        });
        let value = self.value_type();
        let codec = self.result.codec();
        let question = matches!(self.result, Kind::Fallible(_)).then(|| quote!(?));
        quote_spanned! {site=>
            impl<__P: #interface + ?::core::marker::Sized> __plugin::__private::Serve<__P, #number> for dyn #interface {
                #[inline]
                fn serve(
                    plugin: &__P,
                    arguments: &mut __plugin::Arguments<'_>,
                    answer: &mut __plugin::Answer<'_>,
                ) -> ::core::result::Result<(), __plugin::CallError> {
                    #( let #names = __codec::Take::<'_, #types>::take(&#codecs, arguments)?; )*
                    arguments.end()?;
                    let value = <__P as #interface>::#name(plugin, #(#passed),*) #question;
                    __codec::Codec::<#value>::give(&#codec, value, answer)
                }
            }
        }
    }

    /// Returns the type that the method returns.
    fn result_type(&self) -> TokenStream {
        match &self.item.sig.output {
            ReturnType::Default => quote!(()),
            ReturnType::Type(_, ty) => quote!(#ty),
        }
    }

    /// Returns the type that crosses: the same, but for `Result<T, CallError>`, of which it is `T`.
    fn value_type(&self) -> TokenStream {
        let ty = self.result_type();
        match &self.result {
            Kind::Fallible(_) => quote!(<#ty as __codec::Fallible>::Value),
            _ => ty,
        }
    }

    /// Returns `E` of a method that returns `Result<T, E>`.
    fn error_type(&self) -> Type {
        match &self.item.sig.output {
            ReturnType::Type(_, ty) => generics(ty, "Result").and_then(|types| types.into_iter().nth(1)),
            ReturnType::Default => None,
        }
        .expect("it was found when the method was read")
    }

    fn names(&self) -> impl Iterator<Item = &Ident> {
        self.parameters.iter().map(|parameter| &parameter.name)
    }

    fn default_name(&self) -> Ident {
        format_ident!("__default_{}", self.item.sig.ident)
    }
}

impl Parameter {
    fn read(input: &FnArg) -> Result<Parameter, Error> {
        let FnArg::Typed(typed) = input else { unreachable!("only the first is a receiver") };
        let Pat::Ident(name) = &*typed.pat else {
            return Err(Error::new_spanned(&typed.pat, "give the parameter a name"));
        };
        let ty = bare(&typed.ty);
        let (kind, is_lent) = Kind::of_parameter(ty)?;
        let taken = match (&kind, ty) {
            (Kind::Text | Kind::Bytes, ty) => ty.clone(),
            (_, Type::Reference(reference)) => (*reference.elem).clone(),
            (_, ty) => ty.clone(),
        };
        Ok(Parameter { name: name.ident.clone(), kind, is_lent, taken })
    }
}

fn is_shared(receiver: &syn::Receiver) -> bool {
    matches!(&receiver.kind, syn::ReceiverKind::Reference(_, None, None)) && receiver.mutability.is_none()
}

/// Takes the attribute out of the list.
fn take(attributes: &mut Vec<Attribute>, name: &str) -> Result<Option<Meta>, Error> {
    let Some(at) = attributes.iter().position(|attribute| attribute.path().is_ident(name)) else { return Ok(None) };
    let taken = attributes.remove(at).meta;
    match attributes.iter().find(|attribute| attribute.path().is_ident(name)) {
        Some(second) => Err(Error::new_spanned(second, "duplicate attribute")),
        None => Ok(Some(taken)),
    }
}

fn on_error(meta: &Meta) -> Result<Expr, Error> {
    match meta {
        Meta::List(list) => list.parse_args(),
        other => Err(Error::new_spanned(other, "expected the value that a failed call returns: #[on_error(value)]")),
    }
}

fn repeatable(meta: &Meta) -> Result<(), Error> {
    match meta {
        Meta::Path(_) => Ok(()),
        other => Err(Error::new_spanned(other, "this attribute has no arguments: #[repeatable]")),
    }
}

fn since(meta: &Meta, version: Version) -> Result<Version, Error> {
    let Meta::List(list) = meta else {
        return Err(Error::new_spanned(meta, "expected the version that added the method: #[since(\"1.1\")]"));
    };
    let text: Lit = list.parse_args()?;
    let since = Version::of(&text)?;
    if since.major != version.major || since > version {
        let message =
            format!("the interface has version {version}: expected a version from {}.0 to {version}", version.major);
        return Err(Error::new(text.span(), message));
    }
    if since.minor == 0 {
        return Err(Error::new(text.span(), "a method of the first version needs no `#[since]`"));
    }
    Ok(since)
}
