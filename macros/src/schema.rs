//! `#[derive(Schema)]`: what a serde type is made of, as postcard writes it.

use proc_macro2::{TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericArgument, GenericParam, Generics, Ident, LitStr, Meta, Path,
    PathArguments, Token, Type, parse_quote,
};

/// What stands in the place of the type's own fields.
enum Told {
    /// Another type with the same bytes.
    As(Box<Type>),
    /// A name for the format.
    Name(LitStr),
}

/// Where an attribute stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Type,
    Variant,
    Field,
}

/// What `#[schema(…)]` says.
#[derive(Default)]
struct Options {
    told: Option<Told>,
    plugin: Option<Path>,
}

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream, Error> {
    let mut input: DeriveInput = syn::parse2(item)?;
    let Options { told, plugin } = options(&input.attrs, Place::Type)?;
    let plugin = plugin.unwrap_or_else(|| parse_quote!(::hotslot_plugin));
    let mut wrong = None;
    let mut types = Vec::new();
    let layout = match told {
        Some(told) => told.layout(&mut types),
        None => {
            note(&mut wrong, serde(&input.attrs, Place::Type).map(drop));
            own_layout(&input, &mut types, &mut wrong)?
        }
    };
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    bound(&mut input.generics, &types);
    let (name, (for_all, arguments, bounds)) = (&input.ident, input.generics.split_for_impl());
    let spelled = unraw(name);
    Ok(quote! {
        const _: () = {
            use #plugin::__private::schema as __schema;

            /// The type within itself.
            #[allow(dead_code, reason = "few types contain themselves")]
            struct __Itself;

            impl __schema::Schema for __Itself {
                const LAYOUT: &'static __schema::Layout = &__schema::Layout::Name(#spelled);
            }

            #[automatically_derived]
            impl #for_all __schema::Schema for #name #arguments #bounds {
                const LAYOUT: &'static __schema::Layout = #layout;
            }
        };
    })
}

impl Told {
    fn layout(self, types: &mut Vec<Type>) -> TokenStream {
        match self {
            Told::As(ty) => {
                let layout = layout_of(&ty);
                types.push(*ty);
                layout
            }
            Told::Name(name) => quote!(&__schema::Layout::Told(#name)),
        }
    }
}

fn layout_of(ty: &Type) -> TokenStream {
    quote_spanned!(ty.span()=> <#ty as __schema::Schema>::LAYOUT)
}

/// Describes a type by its fields or variants. Keeps the types of all fields.
fn own_layout(input: &DeriveInput, types: &mut Vec<Type>, wrong: &mut Option<Error>) -> Result<TokenStream, Error> {
    let spelled = unraw(&input.ident);
    let mut members = |fields: &Fields, types: &mut Vec<Type>| {
        let mut layouts = Vec::new();
        for field in fields {
            let layout = field_layout(field, input, types);
            let name = field.ident.as_ref().map(unraw);
            layouts.extend(
                layout
                    .unwrap_or_else(|error| {
                        note(wrong, Err(error));
                        None
                    })
                    .map(|layout| match name {
                        Some(name) => quote!((#name, #layout)),
                        None => layout,
                    }),
            );
        }
        match fields {
            Fields::Unit => quote!(__schema::Members::None),
            Fields::Named(_) => quote!(__schema::Members::Named(&[#(#layouts),*])),
            Fields::Unnamed(_) => quote!(__schema::Members::Unnamed(&[#(#layouts),*])),
        }
    };
    match &input.data {
        Data::Struct(data) => {
            let members = members(&data.fields, types);
            Ok(quote!(&__schema::Layout::Struct(#spelled, #members)))
        }
        Data::Enum(data) if data.variants.is_empty() => {
            Err(Error::new(data.enum_token.span(), "an enum without variants has no value: add a variant"))
        }
        Data::Enum(data) => {
            let mut variants = Vec::new();
            let mut refused = None;
            for variant in &data.variants {
                note(&mut refused, serde(&variant.attrs, Place::Variant).map(drop));
                let told = options(&variant.attrs, Place::Variant);
                note(&mut refused, told.map(drop));
                let (name, members) = (unraw(&variant.ident), members(&variant.fields, types));
                variants.push(quote!((#name, #members)));
            }
            if let Some(refused) = refused {
                note(wrong, Err(refused));
            }
            Ok(quote!(&__schema::Layout::Enum(#spelled, &[#(#variants),*])))
        }
        Data::Union(data) => Err(Error::new(
            data.union_token.span(),
            "a union does not record which field is set: use an enum or a struct",
        )),
    }
}

/// Describes a field; `None` if it does not cross.
fn field_layout(field: &syn::Field, input: &DeriveInput, types: &mut Vec<Type>) -> Result<Option<TokenStream>, Error> {
    let Options { told, .. } = options(&field.attrs, Place::Field)?;
    let serde = match &told {
        // Whatever replaces serde's code: the author says what comes of it. What does not always write it stays refused.
        Some(_) => serde_told(&field.attrs)?,
        None => serde(&field.attrs, Place::Field)?,
    };
    if serde.is_skipped {
        return Ok(None);
    }
    if let Some(told) = told {
        return Ok(Some(told.layout(types)));
    }
    let mut ty = field.ty.clone();
    types.push(ty.clone());
    replace_itself(&mut ty, input);
    Ok(Some(layout_of(&ty)))
}

/// Puts `__Itself` where a type contains itself, so that its description ends.
fn replace_itself(ty: &mut Type, input: &DeriveInput) {
    match ty {
        Type::Path(path) if path.qself.is_none() => {
            if path.path.is_ident("Self") || is_itself(&path.path, input) {
                *ty = parse_quote!(__Itself);
                return;
            }
            for segment in &mut path.path.segments {
                let PathArguments::AngleBracketed(arguments) = &mut segment.arguments else { continue };
                for argument in &mut arguments.args {
                    if let GenericArgument::Type(ty) = argument {
                        replace_itself(ty, input);
                    }
                }
            }
        }
        Type::Tuple(tuple) => tuple.elems.iter_mut().for_each(|ty| replace_itself(ty, input)),
        Type::Array(array) => replace_itself(&mut array.elem, input),
        Type::Slice(slice) => replace_itself(&mut slice.elem, input),
        Type::Reference(reference) => replace_itself(&mut reference.elem, input),
        Type::Group(group) => replace_itself(&mut group.elem, input),
        Type::Paren(paren) => replace_itself(&mut paren.elem, input),
        _ => {}
    }
}

/// Returns whether a path is the type with its own parameters.
fn is_itself(path: &Path, input: &DeriveInput) -> bool {
    let name = &input.ident;
    let (_, arguments, _) = input.generics.split_for_impl();
    let own: Path = parse_quote!(#name #arguments);
    let text = |path: &Path| quote!(#path).to_string().replace("::", "").replace(' ', "").replace(",>", ">");
    path.leading_colon.is_none() && path.segments.len() == 1 && text(path) == text(&own)
}

/// Demands a description of the type parameters that cross.
fn bound(generics: &mut Generics, types: &[Type]) {
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter
            && types.iter().any(|ty| mentions(quote!(#ty), &parameter.ident))
        {
            parameter.bounds.push(parse_quote!(__schema::Schema));
        }
    }
}

/// Returns whether tokens have a name in them, other than within a `PhantomData<…>`.
fn mentions(tokens: TokenStream, name: &Ident) -> bool {
    let (mut depth, mut phantom, mut follows_dash) = (0u32, None, false);
    for token in tokens {
        let is_arrow = std::mem::replace(&mut follows_dash, false);
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '-' => follows_dash = true,
            TokenTree::Punct(punct) if punct.as_char() == '>' && is_arrow => {}
            TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
            TokenTree::Punct(punct) if punct.as_char() == '>' => {
                depth = depth.saturating_sub(1);
                phantom = phantom.filter(|&begun| depth > begun);
            }
            TokenTree::Ident(ident) if ident == "PhantomData" => phantom = phantom.or(Some(depth)),
            TokenTree::Ident(ident) if ident == name && phantom.is_none() => return true,
            TokenTree::Group(group) if phantom.is_none() && mentions(group.stream(), name) => return true,
            _ => {}
        }
    }
    false
}

/// Reads `#[schema(…)]`.
fn options(attributes: &[Attribute], place: Place) -> Result<Options, Error> {
    let mut options = Options::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("schema")) {
        attribute.parse_nested_meta(|meta| {
            let told = if meta.path.is_ident("as") && place != Place::Variant {
                Told::As(Box::new(meta.value()?.parse()?))
            } else if meta.path.is_ident("name") && place != Place::Variant {
                let name: LitStr = meta.value()?.parse()?;
                let text = name.value();
                let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
                if text.is_empty() || text.len() > 100 || !text.bytes().all(is_sound) {
                    return Err(Error::new(name.span(), "a name must be 1 to 100 of letters, digits and -_./:"));
                }
                Told::Name(name)
            } else if meta.path.is_ident("crate") && place == Place::Type {
                options.plugin = Some(meta.value()?.call(Path::parse_mod_style)?);
                return Ok(());
            } else {
                return Err(meta.error(match place {
                    Place::Type => "unknown: expected `as = Type`, `name = \"…\"` or `crate = path`",
                    Place::Field => "unknown: expected `as = Type` or `name = \"…\"`",
                    Place::Variant => "a variant takes no `schema`: put it on the field in it",
                }));
            };
            if options.told.replace(told).is_some() {
                return Err(meta.error("a type crosses in one way: leave one of them"));
            }
            Ok(())
        })?;
    }
    Ok(options)
}

/// What serde's attributes do to the bytes.
#[derive(Default)]
struct Serde {
    is_skipped: bool,
}

const NO_EFFECT: &[&str] = &[
    "rename",
    "rename_all",
    "rename_all_fields",
    "deny_unknown_fields",
    "alias",
    "bound",
    "borrow",
    "crate",
    "default",
    "expecting",
    "getter",
    "remote",
    "transparent",
];
const REPLACED: &[&str] = &["with", "serialize_with", "deserialize_with", "from", "try_from", "into"];

/// Reads serde's attributes, and refuses those whose effect on the bytes cannot be described.
fn serde(attributes: &[Attribute], place: Place) -> Result<Serde, Error> {
    read_serde(attributes, place, false)
}

/// Reads serde's attributes on a field whose bytes are told.
fn serde_told(attributes: &[Attribute]) -> Result<Serde, Error> {
    read_serde(attributes, Place::Field, true)
}

fn read_serde(attributes: &[Attribute], place: Place, is_told: bool) -> Result<Serde, Error> {
    let mut skipped: [Option<Error>; 2] = [None, None];
    let mut serde = Serde::default();
    let mut wrong = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let Meta::List(list) = &attribute.meta else { continue };
        let metas = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)?;
        for meta in metas {
            let name = meta.path().get_ident().map(Ident::to_string).unwrap_or_default();
            let refuse = |why: &str| Error::new_spanned(&meta, format!("`{name}` {why}"));
            let refusal = match name.as_str() {
                known if NO_EFFECT.contains(&known) => continue,
                replaced if REPLACED.contains(&replaced) && is_told => continue,
                "with" | "serialize_with" | "deserialize_with" if place == Place::Variant => refuse(
                    "replaces what serde writes: put it on the field in the variant, with #[schema(as = Type)] for what \
                     crosses",
                ),
                replaced if REPLACED.contains(&replaced) => refuse(
                    "replaces what serde writes: say what crosses instead, with #[schema(as = Type)] or \
                     #[schema(name = \"…\")]",
                ),
                "skip" if place == Place::Field => {
                    serde.is_skipped = true;
                    continue;
                }
                "skip_serializing" | "skip_deserializing" if place == Place::Field => {
                    let which = usize::from(name == "skip_deserializing");
                    skipped[which] = Some(refuse("leaves a field out on one side only: use `skip`, or neither"));
                    continue;
                }
                "skip" | "skip_serializing" | "skip_deserializing" => {
                    refuse("on a variant shifts the numbers of those that follow: remove the variant, or the attribute")
                }
                "skip_serializing_if" => refuse(
                    "leaves out a field that the reader expects, because postcard has no names: use an `Option`, or \
                     remove it",
                ),
                "flatten" => refuse("needs a format with names, and postcard has none: name the fields here"),
                "tag" | "content" | "untagged" | "other" | "field_identifier" | "variant_identifier" => refuse(
                    "needs a format that describes itself, and postcard does not: remove it, or use a type of its own \
                     for what crosses",
                ),
                _ => refuse(
                    "is unknown: whether it changes what crosses cannot be told. Remove it, or use a type of its own",
                ),
            };
            note(&mut wrong, Err(refusal));
        }
    }
    match skipped {
        [Some(_), Some(_)] => serde.is_skipped = true,
        [one, other] => {
            if let Some(error) = one.or(other).filter(|_| !serde.is_skipped) {
                note(&mut wrong, Err(error));
            }
        }
    }
    wrong.map_or(Ok(serde), Err)
}

fn note(wrong: &mut Option<Error>, outcome: Result<(), Error>) {
    match (outcome, wrong.as_mut()) {
        (Err(error), Some(earlier)) => earlier.combine(error),
        (Err(error), None) => *wrong = Some(error),
        (Ok(()), _) => {}
    }
}

/// Spells a name as it is, without `r#`.
fn unraw(name: &Ident) -> String {
    syn::ext::IdentExt::unraw(name).to_string()
}
