//! The constructs that only a statement has.

mod condition;
mod statement;

use super::tokens::{Context, Kind, Token, tokens};
use super::words::{COMMON, ENGLISH, SCHEMA, TELLING, TYPES, VARIABLES};
use crate::catalogue::Rule;
use crate::view::{Hits, View, excerpt, listed};

/// What it takes, in steps, to look at what may begin at a token.
const TOKEN: usize = 120;

pub(super) fn inspect(context: Context, view: &View<'_>, hits: &mut Hits) {
    let tokens = tokens(view.lower, context);
    if !view.work.spend(tokens.len() * TOKEN) {
        return;
    }
    let mut scan = Scan {
        view,
        tokens: &tokens,
        markup: view.text.contains('<'),
        broken: context != Context::Bare && breaks_out(&tokens),
        hits,
    };
    if scan.broken {
        scan.breakout();
    }
    for at in 0..tokens.len() {
        scan.step(at);
    }
    scan.calls();
}

/// Whether the quote in front of the value is closed and SQL goes on behind it. In prose an apostrophe is followed by the
/// rest of a word, and a quotation by a word that is no keyword.
fn breaks_out(tokens: &[Token<'_>]) -> bool {
    let [text, next, ..] = tokens else { return false };
    text.kind == Kind::Text
        && match next.kind {
            Kind::Word => {
                is_logic(next)
                    || listed(
                        &[
                            "group",
                            "having",
                            "in",
                            "into",
                            "is",
                            "like",
                            "limit",
                            "order",
                            "procedure",
                            "regexp",
                            "rlike",
                            "union",
                            "waitfor",
                            "where",
                        ],
                        next.text,
                    )
            }
            Kind::Open | Kind::Text | Kind::Number | Kind::Dot | Kind::Other | Kind::Variable => false,
            _ => true,
        }
}

fn is_logic(token: &Token<'_>) -> bool {
    token.kind == Kind::Logic || token.kind == Kind::Word && matches!(token.text, "or" | "and" | "xor" | "div" | "mod")
}

fn is_comparison(token: &Token<'_>) -> bool {
    token.kind == Kind::Compare
        || token.kind == Kind::Word
            && matches!(token.text, "like" | "rlike" | "regexp" | "between" | "in" | "is" | "sounds" | "glob")
}

fn is_literal(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Number | Kind::Text | Kind::Open)
        || token.kind == Kind::Word && matches!(token.text, "null" | "true" | "false")
}

/// A literal or a name.
fn is_operand(token: &Token<'_>) -> bool {
    is_literal(token) || matches!(token.kind, Kind::Word | Kind::Variable)
}

struct Scan<'s, 'v> {
    view: &'s View<'v>,
    tokens: &'s [Token<'v>],
    /// Whether the value may be markup, in which comparisons of literals are attributes.
    markup: bool,
    /// The value closes the quote that it landed in.
    broken: bool,
    hits: &'s mut Hits,
}

impl<'v> Scan<'_, 'v> {
    fn get(&self, at: usize) -> Option<&Token<'v>> {
        self.tokens.get(at)
    }

    /// The token here; behind the last one, a token that means nothing.
    fn at(&self, at: usize) -> Token<'v> {
        let end = Token { kind: Kind::Other, text: "", start: self.view.lower.len() };
        self.get(at).copied().unwrap_or(end)
    }

    fn kind(&self, at: usize) -> Option<Kind> {
        self.get(at).map(|token| token.kind)
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.get(at).is_some_and(|token| token.is(word))
    }

    fn any(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    /// No token here, or one that says that the rest is cut off.
    fn ends(&self, at: usize) -> bool {
        self.get(at).is_none_or(|token| matches!(token.kind, Kind::Comment | Kind::Semicolon))
    }

    fn skip(&self, mut at: usize, fits: impl Fn(&Token<'_>) -> bool) -> usize {
        while self.get(at).is_some_and(&fits) {
            at += 1;
        }
        at
    }

    /// A name that follows directly with its parenthesis, as no prose has it.
    fn is_call(&self, at: usize) -> bool {
        match (self.get(at), self.get(at + 1)) {
            (Some(name), Some(open)) => name.kind == Kind::Word && open.kind == Kind::Left && open.start == name.end(),
            _ => false,
        }
    }

    fn is_known_call(&self, at: usize) -> bool {
        self.kind(at + 1) == Some(Kind::Left)
            && self.get(at).is_some_and(|name| {
                name.kind == Kind::Word && (listed(TELLING, name.text) || self.is_call(at) && listed(COMMON, name.text))
            })
    }

    fn hit(&mut self, rule: Rule, at: usize) {
        if let Some(token) = self.tokens.get(at) {
            self.hits.add(rule, excerpt(self.view.text, token.start, 60));
        }
    }

    /// A word that SQL would take for a name here, and English would not.
    fn is_name(&self, at: usize) -> bool {
        self.get(at).is_some_and(|token| {
            matches!(token.kind, Kind::Word | Kind::Text | Kind::Variable) && !listed(ENGLISH, token.text)
        })
    }

    fn step(&mut self, at: usize) {
        let token = self.at(at);
        match token.kind {
            Kind::Word => {
                self.keyword(at, token.text);
                self.schema(at, token.text);
            }
            Kind::Logic => {}
            Kind::Variable if token.text.starts_with("@@") && token.text.len() > 3 && listed(VARIABLES, token.text) => {
                self.hit(Rule::SqlSchema, at);
            }
            Kind::Json => self.json(at),
            Kind::Cast => self.cast(at),
            Kind::Number => self.exponent(at),
            Kind::Semicolon => self.stacked(at + 1),
            Kind::Compare => self.literals(at),
            _ => {}
        }
        if is_logic(&token) {
            self.condition(at);
        }
    }

    fn schema(&mut self, at: usize, word: &str) {
        if listed(SCHEMA, word)
            && (word.contains(['_', '$'])
                || self.kind(at + 1) == Some(Kind::Dot)
                || self.broken
                || at > 0 && self.any(at - 1, &["from", "join"]))
        {
            self.hit(Rule::SqlSchema, at);
        }
        let of = |schema: &str, names: &[&str]| {
            word == schema && self.kind(at + 1) == Some(Kind::Dot) && names.iter().any(|name| self.is(at + 2, name))
        };
        if of("mysql", &["user", "db", "host", "proc"])
            || of(
                "sys",
                &["database_name", "tables", "objects", "columns", "user$", "databases", "schemas", "all_columns"],
            )
            || of("master", &["dbo"])
        {
            self.hit(Rule::SqlSchema, at);
        }
    }

    fn json(&mut self, at: usize) {
        let operator = self.at(at).text;
        let quoted = |token: Option<&Token<'_>>| {
            token.is_some_and(|t| matches!(t.kind, Kind::Text | Kind::Open) && t.text.len() > 2)
        };
        let before = at.checked_sub(1).and_then(|before| self.get(before));
        let typed = at >= 2 && self.kind(at - 2) == Some(Kind::Cast);
        let after = self.get(at + 1);
        let path = quoted(after) && operator != "?" || after.is_some_and(|t| t.is("array"));
        let keyed = matches!(operator, "->" | "->>" | "#>" | "#>>" | "<@" | "@>" | "?|" | "?&" | "?")
            && (quoted(before) || typed)
            && (path || quoted(after) || after.is_some_and(|t| t.kind == Kind::Number));
        let column = matches!(operator, "@>" | "<@" | "#>" | "#>>" | "->>")
            && before.is_some_and(|t| t.kind == Kind::Word)
            && quoted(after);
        let object = before.is_some_and(|t| t.text.starts_with("'{") || t.text.starts_with("'["));
        if keyed && (operator != "?" || typed || object || self.broken) || column {
            self.hit(Rule::SqlJson, at.saturating_sub(1));
        }
    }

    fn cast(&mut self, at: usize) {
        let tight = at > 0
            && self.at(at - 1).end() == self.at(at).start
            && self.get(at + 1).is_some_and(|t| t.start == self.at(at).end());
        let value = at > 0 && matches!(self.at(at - 1).kind, Kind::Word | Kind::Text | Kind::Right | Kind::Number);
        if tight && value && self.get(at + 1).is_some_and(|name| name.kind == Kind::Word && listed(TYPES, name.text)) {
            self.hit(Rule::SqlCast, at - 1);
        }
    }

    /// `1.e(…)`, `1.e.tables`: MySQL reads a number with an empty exponent.
    fn exponent(&mut self, at: usize) {
        let number = self.at(at);
        let touches = self.get(at + 1).is_some_and(|next| {
            next.start == number.end() && matches!(next.kind, Kind::Left | Kind::Dot | Kind::Right | Kind::Comma)
        });
        if number.text.ends_with(".e") && touches {
            self.hit(Rule::SqlExponent, at);
        }
    }

    /// Calls of SQL functions, alone and inside each other.
    fn calls(&mut self) {
        let mut common = 0;
        let first = self.get(0).is_some_and(|name| listed(TELLING, name.text) || listed(COMMON, name.text));
        if first && self.dangles() {
            self.hit(Rule::SqlDangling, 0);
        }
        for at in 0..self.tokens.len() {
            let name = self.at(at);
            let known = name.kind == Kind::Word && self.kind(at + 1) == Some(Kind::Left);
            if known
                && listed(TELLING, name.text)
                && (self.is_call(at) || name.text == "sleep" && self.kind(at + 2) == Some(Kind::Number))
            {
                self.hit(Rule::SqlFunction, at);
            } else if self.is_call(at)
                && listed(COMMON, name.text)
                && !matches!(at.checked_sub(1).and_then(|before| self.kind(before)), Some(Kind::Dot))
            {
                common += 1;
                self.hit(Rule::SqlCall, at);
                if at > 1 && self.at(at - 1).kind == Kind::Left && self.is_known_call(at - 2) {
                    self.hit(Rule::SqlNested, at);
                }
            }
        }
        if common > 2 && self.broken {
            self.hit(Rule::SqlNested, 0);
        }
    }

    /// Whether the value is the beginning of a call and nothing else.
    fn dangles(&self) -> bool {
        self.tokens.len() <= 3
            && self.kind(1) == Some(Kind::Left)
            && self.tokens.iter().all(|token| token.kind != Kind::Right)
            && self.kind(2).is_none_or(|kind| kind != Kind::Word)
    }
}

fn odd_quotes(text: &str) -> bool {
    [b'\'', b'"', b'`'].iter().any(|quote| text.bytes().filter(|byte| byte == quote).count() % 2 == 1)
}
