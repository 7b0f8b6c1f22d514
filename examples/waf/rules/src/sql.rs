//! SQL injection: reads a value as a database would read it in each place of a statement where it could land, bare or
//! inside of either quote, and looks for constructs that only a statement has.

mod grammar;
mod tokens;
mod words;

use crate::catalogue::Rule;
use crate::cut;
use crate::parts::Place;
use crate::view::{Hits, View, excerpt, listed};
use crate::words::words;

/// Operators of document databases.
static DOCUMENT_OPERATORS: &[&str] = words!(
    "$abs $accumulator $addfields $all $and $bit $bitsallset $comment $elemmatch $eq $exists $expr $function
     $geointersects $geowithin $group $gt $gte $in $jsonschema $lookup $lt $lte $match $mod $ne $near $nearsphere
     $nin $nor $not $options $or $project $regex $size $slice $text $type $unwind $where"
);

/// One step outside of 32 and 64 bits, and numbers at which parsers of floating point once hung.
static EDGES: &[&str] = words!(
    "-2147483649 -9223372036854775809 0.0000000000000000000000000000000000000000000000000000000000000001 0x80000000
     0xffffffff 18446744073709551615 18446744073709551616 1e309 1e500 2.2250738585072007e-308 2.2250738585072011e-308
     2147483648 2147483649 4294967295 4294967296 9223372036854775808 9223372036854775809 99999999999999999999"
);

/// Sample and system databases that are named alone when somebody wants to know which server answers.
static DATABASES: &[&str] = &["master..sysdatabases", "msdb", "northwind", "tempdb"];

/// Values that mean something by themselves.
pub(crate) fn values(view: &View<'_>, hits: &mut Hits) {
    let trimmed = view.lower.trim();
    if listed(EDGES, trimmed) {
        hits.add(Rule::SqlEdge, trimmed);
    }
    if listed(DATABASES, trimmed) {
        hits.add(Rule::SqlNames, trimmed);
    }
}

pub(crate) fn inspect(view: &View<'_>, hits: &mut Hits) {
    document_operators(view, hits);
    if view.place == Place::UserAgent && !view.text.contains(['\'', '"', '*']) && !view.lower.contains("select") {
        return; // `(compatible; …)` reads like statements
    }
    comments(view, hits);
    if !view.text.bytes().any(|byte| byte.is_ascii_punctuation() || byte == b' ') {
        return;
    }
    grammar::inspect(tokens::Context::Bare, view, hits);
    for (context, quote) in
        [(tokens::Context::Single, '\''), (tokens::Context::Double, '"'), (tokens::Context::Backtick, '`')]
    {
        if view.text.contains(quote) {
            grammar::inspect(context, view, hits);
        }
    }
}

/// `name[$ne]=…` and `{"$ne": …}`.
fn document_operators(view: &View<'_>, hits: &mut Hits) {
    if view.place != Place::ArgName {
        return;
    }
    for (at, ..) in view.occurrences(view.lower, "$") {
        let name = cut::from(view.lower, at).bytes().skip(1).take_while(u8::is_ascii_alphanumeric).count();
        let operator = excerpt(view.lower, at, 1 + name);
        let opened = at == 0 || cut::until(view.lower, at).ends_with(['[', '.', '"']);
        if opened && listed(DOCUMENT_OPERATORS, operator) {
            hits.add(Rule::NoSql, excerpt(view.text, at, operator.len()));
        }
    }
}

/// Comments that run (`/*! … */`) and comments inside of a word.
fn comments(view: &View<'_>, hits: &mut Hits) {
    for (at, before, _) in view.occurrences(view.lower, "/*") {
        let rest = cut::from(view.lower, at + 2);
        let letter = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphabetic());
        if rest.strip_prefix('!').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric())) {
            hits.add(Rule::SqlComment, excerpt(view.text, at, 40));
        }
        let empty = rest.starts_with("*/");
        if empty && letter(before) && letter(rest.as_bytes().get(2).copied()) {
            hits.add(Rule::SqlComment, excerpt(view.text, at.saturating_sub(10), 40));
        }
    }
}

#[cfg(test)]
#[test]
fn lists_are_sorted() {
    for list in [DOCUMENT_OPERATORS, EDGES, DATABASES] {
        assert!(list.is_sorted());
    }
}
