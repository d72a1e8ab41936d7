//! `#[derive(Layout)]` for `ringway-client`: says what the archives of a type look like, so that a
//! consumer with another idea of the type is told instead of reading nonsense.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, LitStr, Token, Type};
use syn::{parenthesized, token};

/// Derives `ringway_client::Layout` for a struct or enum that derives rkyv's `Archive`.
///
/// The layout is made of the type's name, its fields' or variants' names and layouts in their
/// order, and of what rkyv was told about them. `#[layout(name = "…")]` gives another name: that of
/// before, when a type is renamed, or one with a version in it, when its meaning changes.
#[proc_macro_derive(Layout, attributes(layout))]
pub fn derive_layout(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream, Error> {
    let ident = &input.ident;
    let name = name_of(input)?;
    let told = rkyv_attributes(&input.attrs)?;
    let parts = match &input.data {
        Data::Struct(data) => parts(&data.fields)?,
        Data::Enum(data) => {
            let mut all = TokenStream::new();
            for variant in &data.variants {
                let variant_name = variant.ident.to_string();
                let parts = parts(&variant.fields)?;
                all.extend(quote! { .word(#variant_name) #parts .end() });
            }
            all
        }
        Data::Union(_) => {
            let why = "a union has no layout: nothing says which of its fields is there";
            return Err(Error::new_spanned(ident, why));
        }
    };
    let mut generics = input.generics.clone();
    let parameters: Vec<_> = generics
        .type_params()
        .map(|each| each.ident.clone())
        .collect();
    let bounds = generics.make_where_clause();
    bounds
        .predicates
        .push(syn::parse_quote! { Self: ::ringway_client::rkyv::Archive });
    for parameter in &parameters {
        bounds
            .predicates
            .push(syn::parse_quote! { #parameter: ::ringway_client::Layout });
    }
    let (for_all, of, bounds) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #for_all ::ringway_client::Layout for #ident #of #bounds {
            const NAME: &'static str = #name;
            const SHAPE: ::ringway_client::Shape = ::ringway_client::Shape::new(#name)
                #(.word(#told))*
                #parts
                .end()
                .of::<Self>();
        }
    })
}

/// The name given by `#[layout(name = "…")]`, or the type's own.
fn name_of(input: &DeriveInput) -> Result<String, Error> {
    let mut name = input.ident.to_string();
    for attribute in input
        .attrs
        .iter()
        .filter(|each| each.path().is_ident("layout"))
    {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("unknown key: only `name = \"…\"` is known"));
            }
            name = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(name)
}

/// What rkyv was told, as words; but for what changes no layout.
fn rkyv_attributes(attributes: &[Attribute]) -> Result<Vec<String>, Error> {
    const HARMLESS: [&str; 10] = [
        "crate",
        "derive",
        "compare",
        "bytecheck",
        "archive_bounds",
        "serialize_bounds",
        "deserialize_bounds",
        "omit_bounds",
        "archived",
        "resolver",
    ];
    let mut words = Vec::new();
    for attribute in attributes
        .iter()
        .filter(|each| each.path().is_ident("rkyv"))
    {
        attribute.parse_nested_meta(|meta| {
            let key = meta.path.to_token_stream().to_string();
            let value = if meta.input.peek(Token![=]) {
                meta.value()?.parse::<Type>()?.to_token_stream()
            } else if meta.input.peek(token::Paren) {
                let inside;
                parenthesized!(inside in meta.input);
                inside.parse()?
            } else {
                TokenStream::new()
            };
            if !HARMLESS.contains(&key.as_str()) {
                words.push(format!("{key} {}", spelling(&value)));
            }
            Ok(())
        })?;
    }
    Ok(words)
}

/// Tokens as one word: where spaces stand differs between compilers.
fn spelling(tokens: &impl ToTokens) -> String {
    let spaced = tokens.to_token_stream().to_string();
    spaced.split_whitespace().collect()
}

/// The calls that add the fields.
fn parts(fields: &Fields) -> Result<TokenStream, Error> {
    let mut calls = TokenStream::new();
    for (index, field) in fields.iter().enumerate() {
        calls.extend(part(index, field)?);
    }
    Ok(calls)
}

fn part(index: usize, field: &Field) -> Result<TokenStream, Error> {
    let name = match &field.ident {
        Some(ident) => ident.to_string(),
        None => index.to_string(),
    };
    let told = rkyv_attributes(&field.attrs)?;
    let kind = &field.ty;
    // A field that rkyv archives in another way has the layout of that way, which only its name
    // tells: the type itself need not have one.
    let replaced = told.iter().any(|word| word.starts_with("with "));
    let layout = if replaced {
        let kind = spelling(kind);
        quote! { .word(#kind) }
    } else {
        quote! { .part(<#kind as ::ringway_client::Layout>::SHAPE) }
    };
    Ok(quote! { .word(#name) #(.word(#told))* #layout })
}
