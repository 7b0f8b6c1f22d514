//! `#[derive(Plain)]`: structs of numbers, and enums without fields, as machine words.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields};

use crate::kind::spelled;

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream, Error> {
    let input: DeriveInput = syn::parse2(item)?;
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new(
            parameter.span(),
            "a plain type has a single layout, so it cannot be generic: use a concrete type",
        ));
    }
    let name = &input.ident;
    let body = match &input.data {
        Data::Struct(data) => of_struct(&data.fields),
        Data::Enum(data) => of_enum(data)?,
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span(),
                "a union does not record which field is set: use an enum or a struct",
            ));
        }
    };
    Ok(quote! {
        const _: () = {
            #[automatically_derived]
            impl ::hotslot_plugin::Plain for #name {
                #body
            }
        };
    })
}

fn of_struct(fields: &Fields) -> TokenStream {
    let types: Vec<_> = fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = fields.members().collect();
    let names = members.iter().map(|member| member.to_token_stream().to_string());
    let spellings = types.iter().map(|ty| spelled(ty));
    quote! {
        const WORDS: usize = 0 #(+ <#types as ::hotslot_plugin::Plain>::WORDS)*;
        const SHAPE: &'static ::hotslot_plugin::__private::contract::Shape =
            &::hotslot_plugin::__private::contract::Shape::Fields(&[#(
            ::hotslot_plugin::__private::contract::Field { name: #names, ty: #spellings, shape: <#types as ::hotslot_plugin::Plain>::SHAPE },
        )*]);
        fn put(&self, word: &mut impl FnMut(u64)) {
            #( <#types as ::hotslot_plugin::Plain>::put(&self.#members, word); )*
            let _ = word;
        }
        fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
            let _ = &words;
            Some(Self { #( #members: <#types as ::hotslot_plugin::Plain>::get(words)?, )* })
        }
    }
}

fn of_enum(data: &syn::DataEnum) -> Result<TokenStream, Error> {
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(
                &variant.fields,
                "a plain enum has no fields: derive serde's Serialize and Deserialize instead, and switch the feature \
                 `postcard` of hotslot-plugin on",
            ));
        }
    }
    if data.variants.is_empty() {
        return Err(Error::new(data.enum_token.span(), "an enum without variants has no value: add a variant"));
    }
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = variants.iter().map(|variant| variant.to_string());
    Ok(quote! {
        const WORDS: usize = 1;
        const SHAPE: &'static ::hotslot_plugin::__private::contract::Shape =
            &::hotslot_plugin::__private::contract::Shape::Variants(&[#(
            ::hotslot_plugin::__private::contract::Variant { name: #names, value: Self::#variants as i64 },
        )*]);
        fn put(&self, word: &mut impl FnMut(u64)) {
            word(match self { #( Self::#variants => Self::#variants as i64, )* } as u64);
        }
        fn get(words: &mut impl Iterator<Item = u64>) -> Option<Self> {
            let word = words.next()?;
            #( if word == Self::#variants as i64 as u64 { return Some(Self::#variants); } )*
            None
        }
    })
}
