//! How a type crosses an interface, as far as its spelling tells.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, GenericArgument, PathArguments, Type, TypePath};

/// How a value goes over.
pub(crate) enum Kind {
    /// Nothing.
    Unit,
    /// `&[u8]`.
    Bytes,
    /// `&str`.
    Text,
    /// `Vec<u8>`.
    OwnedBytes,
    /// `String`.
    OwnedText,
    /// A number or a truth value, whose spelling says all.
    Scalar(Type),
    /// A type of the user's: plain if it is, else by serde.
    Other(Type),
    /// `Result<T, E>`.
    Result(Box<Kind>, Box<Kind>),
    /// `Result<T, CallError>`, whose errors are those of the call.
    Fallible(Box<Kind>),
}

const SCALARS: [&str; 11] = ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64"];

impl Kind {
    /// Returns the kind of a parameter, and whether it is lent.
    pub(crate) fn of_parameter(ty: &Type) -> Result<(Kind, bool), Error> {
        let Type::Reference(reference) = ty else { return Ok((Kind::owned(ty)?, false)) };
        if let Some(mutability) = reference.mutability {
            return Err(Error::new(
                mutability.span(),
                "a plugin cannot modify the host's memory: take a value or `&`, and return the new value",
            ));
        }
        if let Some(lifetime) = &reference.lifetime {
            return Err(Error::new(lifetime.span(), "arguments are borrowed for the call only: remove the lifetime"));
        }
        let kind = match bare(&reference.elem) {
            Type::Path(path) if path.path.is_ident("str") => Kind::Text,
            Type::Slice(slice) if is_ident(&slice.elem, "u8") => Kind::Bytes,
            Type::Slice(slice) => {
                return Err(Error::new(
                    slice.span(),
                    "only byte slices cross as slices: take `&[u8]`, or a `Vec` through serde",
                ));
            }
            other => Kind::owned(other)?,
        };
        Ok((kind, true))
    }

    /// Returns the kind of what a method returns.
    pub(crate) fn of_result(ty: &Type) -> Result<Kind, Error> {
        let ty = bare(ty);
        if let Type::Reference(reference) = ty {
            return Err(Error::new_spanned(
                reference,
                "what a method returns has to be owned, because the plugin may be gone before it is used: return \
                 `String` for `&str`, `Vec<u8>` for `&[u8]`, or the value itself",
            ));
        }
        if last_segment(ty).is_some_and(|segment| segment.ident == "Result")
            && generics(ty, "Result").is_none_or(|types| types.len() != 2)
        {
            return Err(Error::new_spanned(ty, "write out both type arguments: `Result<T, E>`"));
        }
        let Some([value, error]) = generics(ty, "Result").as_deref().and_then(<[Type]>::first_chunk::<2>).cloned()
        else {
            return Kind::owned(ty);
        };
        let value = Kind::owned(&value)?;
        if last_segment(&error).is_some_and(|segment| segment.ident == "CallError") {
            return Ok(Kind::Fallible(Box::new(value)));
        }
        Ok(Kind::Result(Box::new(value), Box::new(Kind::owned(&error)?)))
    }

    fn owned(ty: &Type) -> Result<Kind, Error> {
        let refuse = |why: &str| Err(Error::new_spanned(ty, why));
        match bare(ty) {
            Type::Tuple(tuple) if tuple.elems.is_empty() => Ok(Kind::Unit),
            Type::Path(_) if is_ident(ty, "String") => Ok(Kind::OwnedText),
            Type::Path(_) if SCALARS.iter().any(|scalar| is_ident(ty, scalar)) => Ok(Kind::Scalar(ty.clone())),
            Type::Path(_) if is_ident(ty, "usize") || is_ident(ty, "isize") => {
                refuse("`usize` and `isize` have a different size in a wasm plugin: take `u64`, `i64` or `u32`")
            }
            Type::Path(_) if is_ident(ty, "u128") || is_ident(ty, "i128") => {
                refuse("128-bit integers do not fit a machine word: take two `u64`, or `[u64; 2]`")
            }
            Type::Path(_) if is_ident(ty, "Self") => {
                refuse("`Self` is a different type in the host and in the plugin: name a type that both share")
            }
            Type::Path(_) => match generics(ty, "Vec").as_deref() {
                Some([element]) if is_ident(element, "u8") => Ok(Kind::OwnedBytes),
                _ => {
                    inner_types(ty).into_iter().try_for_each(sound_inside)?;
                    Ok(Kind::Other(ty.clone()))
                }
            },
            Type::Array(_) | Type::Tuple(_) => {
                sound_inside(ty)?;
                Ok(Kind::Other(ty.clone()))
            }
            Type::Reference(_) | Type::Slice(_) => {
                refuse("a reference inside another type cannot cross: use the owned type")
            }
            Type::ImplTrait(_) | Type::TraitObject(_) => refuse(
                "host and plugin share no code, so a trait object cannot cross: pass data, or offer the trait as a \
                 service of the host",
            ),
            Type::FnPtr(_) => refuse(
                "a function cannot cross: declare an interface of its own for what plugins call, and offer it as a \
                 service of the host",
            ),
            Type::Ptr(_) => refuse(
                "a pointer means nothing on the other side: take `&[u8]` or `Vec<u8>`, or use the raw layer for \
                 foreign ABIs",
            ),
            _ => refuse("this type cannot cross an interface: use numbers, text, bytes, or your own type"),
        }
    }

    /// Returns an expression for the codec. It stands where `codec` is the plugin crate's module, `Probe` and its fallback
    /// in scope.
    pub(crate) fn codec(&self) -> TokenStream {
        match self {
            Kind::Unit => quote!(__codec::Unit),
            Kind::Bytes => quote!(__codec::Bytes),
            Kind::Text => quote!(__codec::Text),
            Kind::OwnedBytes => quote!(__codec::OwnedBytes),
            Kind::OwnedText => quote!(__codec::OwnedText),
            Kind::Scalar(ty) | Kind::Other(ty) => quote_spanned!(ty.span()=> __codec::Probe::<#ty>::codec()),
            Kind::Result(value, error) => {
                let (value, error) = (value.codec(), error.codec());
                quote!(__codec::ResultOf(#value, #error))
            }
            Kind::Fallible(value) => value.codec(),
        }
    }

    /// Returns how many arguments of the transport a parameter takes.
    pub(crate) fn slots(&self) -> TokenStream {
        match self {
            Kind::Scalar(ty) | Kind::Other(ty) => quote_spanned!(ty.span()=> __codec::Probe::<#ty>::SLOTS),
            Kind::Unit => quote!(0),
            _ => quote!(1),
        }
    }

    /// Returns how many words an answer takes.
    pub(crate) fn words(&self) -> TokenStream {
        match self {
            Kind::Scalar(ty) | Kind::Other(ty) => quote_spanned!(ty.span()=> __codec::Probe::<#ty>::WORDS),
            Kind::Result(value, error) => {
                let (value, error) = (value.words(), error.words());
                quote!(1 + __codec::larger(#value, #error))
            }
            Kind::Fallible(value) => value.words(),
            _ => quote!(0),
        }
    }

    /// Returns the type in the contract's text, as parts of it.
    pub(crate) fn parts(&self) -> TokenStream {
        match self {
            Kind::Unit => quote!(__contract::Part::Text("()"),),
            Kind::Bytes => quote!(__contract::Part::Text("&[u8]"),),
            Kind::Text => quote!(__contract::Part::Text("&str"),),
            Kind::OwnedBytes => quote!(__contract::Part::Text("Vec<u8>"),),
            Kind::OwnedText => quote!(__contract::Part::Text("String"),),
            Kind::Scalar(ty) => {
                let name = spelled(ty);
                quote!(__contract::Part::Text(#name),)
            }
            Kind::Other(ty) => {
                let name = spelled(ty);
                quote! {
                    __contract::Part::Type {
                        spelled: #name,
                        plain: __codec::Probe::<#ty>::SHAPE,
                        by_serde: __codec::Description::<#ty>::LAYOUT,
                    },
                }
            }
            Kind::Result(value, error) => {
                let (value, error) = (value.parts(), error.parts());
                quote! {
                    __contract::Part::Text("Result<"), #value __contract::Part::Text(","), #error __contract::Part::Text(">"),
                }
            }
            Kind::Fallible(value) => {
                let value = value.parts();
                quote!(__contract::Part::Text("Result<"), #value __contract::Part::Text(",CallError>"),)
            }
        }
    }
}

/// Spells a type as it is written, without spaces and without the modules in front: `Vec<Header>`.
pub(crate) fn spelled(ty: &Type) -> String {
    let mut ty = ty.clone();
    strip_modules(&mut ty);
    let text = quote!(#ty).to_string();
    text.chars().filter(|character| !character.is_whitespace()).collect()
}

fn strip_modules(ty: &mut Type) {
    match ty {
        Type::Path(TypePath { path, .. }) => {
            path.leading_colon = None;
            let Some(mut last) = path.segments.pop() else { return };
            if let PathArguments::AngleBracketed(arguments) = &mut last.arguments {
                for argument in &mut arguments.args {
                    if let GenericArgument::Type(ty) = argument {
                        strip_modules(ty);
                    }
                }
            }
            path.segments.clear();
            path.segments.push(last);
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(strip_modules),
        Type::Array(array) => strip_modules(&mut array.elem),
        _ => {}
    }
}

/// Refuses what could not cross inside of another type either.
fn sound_inside(ty: &Type) -> Result<(), Error> {
    match bare(ty) {
        Type::Path(_) => inner_types(ty).into_iter().try_for_each(sound_inside),
        Type::Tuple(tuple) => tuple.elems.iter().try_for_each(sound_inside),
        Type::Array(array) => sound_inside(&array.elem),
        other => Kind::owned(other).map(drop),
    }
}

/// Returns the types between the last angle brackets.
fn inner_types(ty: &Type) -> Vec<&Type> {
    let Some(PathArguments::AngleBracketed(arguments)) = last_segment(ty).map(|segment| &segment.arguments) else {
        return Vec::new();
    };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// Takes a type out of the group in which a macro passed it on.
pub(crate) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        ty => ty,
    }
}

fn last_segment(ty: &Type) -> Option<&syn::PathSegment> {
    match bare(ty) {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        _ => None,
    }
}

fn is_ident(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name && segment.arguments.is_empty())
}

/// Returns the types between the angle brackets, if this is a `name<…>`.
pub(crate) fn generics(ty: &Type, name: &str) -> Option<Vec<Type>> {
    let segment = last_segment(ty).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    let types = arguments.args.iter().map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    });
    types.collect()
}
