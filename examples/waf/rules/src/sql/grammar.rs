//! The constructs that only a statement has.

use super::tokens::{Context, Kind, Token, tokens};
use super::words::{COMMON, ENGLISH, SCHEMA, TELLING, TYPES};
use crate::catalogue::Rule;
use crate::view::{Hits, View, excerpt, listed};

pub(super) fn inspect(context: Context, view: &View<'_>, hits: &mut Hits) {
    let tokens = tokens(view.lower, context);
    let mut scan = Scan { view, broken: context != Context::Bare && breaks_out(&tokens), tokens: &tokens, hits };
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
    /// The value closes the quote that it landed in.
    broken: bool,
    hits: &'s mut Hits,
}

impl Scan<'_, '_> {
    fn get(&self, at: usize) -> Option<&Token<'_>> {
        self.tokens.get(at)
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

    /// `'--`, `');`, `' #`, `'||'`, `' order by 3`.
    fn breakout(&mut self) {
        let at = self.skip(1, |token| matches!(token.kind, Kind::Right | Kind::Semicolon));
        let closed = at > 1 || self.kind(1) == Some(Kind::Semicolon);
        match self.kind(at) {
            Some(Kind::Comment) => self.hit(Rule::SqlBreakout, 0),
            None if closed && self.kind(at - 1) == Some(Kind::Semicolon) && odd_quotes(self.view.text) => {
                self.hit(Rule::SqlBreakout, 0);
            }
            Some(Kind::Logic | Kind::Arithmetic) if at == 1 => {
                let text = self.get(at).is_some_and(|token| matches!(token.text, "||" | "+"));
                let next = self.skip(at + 1, |token| token.kind == Kind::Left);
                let open = matches!(self.kind(next), Some(Kind::Text | Kind::Open))
                    && self.get(next).is_some_and(|t| t.text.starts_with('\''));
                let bare = self.tokens.len() == 3
                    && self.tokens[0].text.len() == 1
                    && self.kind(2) == Some(Kind::Open)
                    && self.view.text.len() < 12;
                if bare
                    || text && open && self.get(at).is_some_and(|token| token.text == "||")
                    || self.is_known_call(next)
                    || self.is(next, "select")
                    || self.is(next, "case")
                {
                    self.hit(Rule::SqlConcat, 0);
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, at: usize) {
        let token = self.tokens[at];
        match token.kind {
            Kind::Word => {
                self.keyword(at, token.text);
                self.schema(at, token.text);
            }
            Kind::Logic => {}
            Kind::Variable if token.text.starts_with("@@") && token.text.len() > 3 => {
                if listed(
                    &[
                        "@@basedir",
                        "@@connections",
                        "@@cpu_busy",
                        "@@datadir",
                        "@@dbts",
                        "@@error",
                        "@@global",
                        "@@hostname",
                        "@@identity",
                        "@@language",
                        "@@microsoftversion",
                        "@@plugin_dir",
                        "@@rowcount",
                        "@@servername",
                        "@@servicename",
                        "@@session",
                        "@@spid",
                        "@@tmpdir",
                        "@@trancount",
                        "@@version",
                        "@@version_comment",
                    ],
                    token.text,
                ) {
                    self.hit(Rule::SqlSchema, at);
                }
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

    /// `or 1=1`, `and 'a'='a'`, `' or name like '%`, `1 or sleep(5)`.
    fn condition(&mut self, at: usize) {
        let number_in_front =
            at == 1 && self.tokens.first().is_some_and(|token| matches!(token.kind, Kind::Number) || is_literal(token));
        let appended = self.broken && at <= 3 || number_in_front || at == 0;
        let word = self.kind(at) == Some(Kind::Word);
        let left = self.skip(at + 1, |token| {
            matches!(token.kind, Kind::Left | Kind::Arithmetic) || token.is("not") || token.is("binary")
        });
        let Some(operand) = self.get(left).copied() else {
            if appended && self.broken && word && at == 1 && odd_quotes(self.view.text) && left > at + 1 {
                self.hit(Rule::SqlTautology, at);
            }
            return;
        };
        let text = self.tokens[at].text;
        if self.is_known_call(left)
            && (word || self.broken)
            && (appended
                || listed(TELLING, operand.text)
                || at > 0 && self.kind(at - 1) == Some(Kind::Right) && self.broken)
        {
            return self.hit(Rule::SqlTautology, at);
        }
        if self.any(left, &["select", "exists"]) && matches!(self.kind(left + 1), Some(Kind::Left | Kind::Arithmetic)) {
            return self.hit(Rule::SqlTautology, at);
        }
        if left > at + 1 && self.is(left, "select") {
            return self.hit(Rule::SqlTautology, at);
        }
        if !is_operand(&operand) {
            return;
        }
        let mut next = left + 1;
        if self.kind(next) == Some(Kind::Dot) {
            next += 2;
        }
        next = self.skip(next, |token| token.is("not") || token.kind == Kind::Right);
        let Some(compare) = self.get(next).copied() else {
            let negated = left > at + 1;
            if is_literal(&operand)
                && word
                && (appended && text != "mod" && (self.broken || number_in_front && negated || operand.text == "true"))
            {
                self.hit(Rule::SqlTautology, at);
            }
            return;
        };
        if is_comparison(&compare) {
            let right = self.skip(next + 1, |token| {
                matches!(token.kind, Kind::Left | Kind::Arithmetic | Kind::Compare)
                    || token.is("not")
                    || token.is("like")
            });
            let Some(other) = self.get(right).copied() else {
                if appended && compare.kind == Kind::Compare {
                    self.hit(Rule::SqlTautology, at);
                }
                return;
            };
            let symbol = compare.kind == Kind::Compare;
            let literals = is_literal(&operand) && (is_literal(&other) || self.is_known_call(right));
            let numbers = operand.kind == Kind::Number && other.kind == Kind::Number;
            let quoted =
                matches!(operand.kind, Kind::Text | Kind::Open) || matches!(other.kind, Kind::Text | Kind::Open);
            if literals && (symbol || appended || self.broken)
                || (appended || self.broken) && is_operand(&other) && (symbol || quoted || numbers)
                || symbol && operand.text == other.text && is_operand(&other)
                || appended && self.broken && compare.is("is") && other.is("null")
            {
                self.hit(Rule::SqlTautology, at);
            }
        } else if is_literal(&operand) && appended && word && (self.broken || number_in_front) {
            let cut = matches!(compare.kind, Kind::Comment | Kind::Semicolon);
            if cut
                || is_logic(&compare)
                    && compare.kind == Kind::Word
                    && self.broken
                    && odd_quotes(self.view.text)
                    && operand.kind == Kind::Number
            {
                self.hit(Rule::SqlTautology, at);
            }
        } else if appended && self.broken && matches!(compare.kind, Kind::Comment) {
            self.hit(Rule::SqlTautology, at);
        }
    }

    /// `'x'='y`: a comparison of two literals, of which the last one is left open.
    fn literals(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1).and_then(|before| self.get(before)) else { return };
        let next = self.skip(at + 1, |token| matches!(token.kind, Kind::Left | Kind::Arithmetic));
        let Some(after) = self.get(next) else { return };
        let own_quote = before.text.len() > 1 && before.kind == Kind::Text;
        let direct = before.end() == self.tokens[at].start && after.start == self.tokens[at].end();
        let markup =
            || self.view.text.contains('<') || before.start > 0 && self.view.text[..before.start].ends_with('=');
        let chained = after.kind == Kind::Text && self.kind(next + 1) == Some(Kind::Compare);
        if own_quote
            && (chained || after.kind == Kind::Open)
            && (direct || self.broken || at == 1)
            && after.text.len() < 40
            && !markup()
        {
            self.hit(Rule::SqlTautology, at - 1);
        }
    }

    fn keyword(&mut self, at: usize, word: &str) {
        match word {
            "union" => self.union(at),
            "select" => self.select(at),
            "insert" | "replace" => {
                if self.is(at + 1, "into") && self.is_name(at + 2) {
                    let mut end = at + 3;
                    while self.kind(end) == Some(Kind::Dot) {
                        end += 2;
                    }
                    if self.kind(end) == Some(Kind::Left) || self.any(end, &["values", "select", "set", "value"]) {
                        self.hit(Rule::SqlStatement, at);
                    }
                }
            }
            "update" => {
                if self.is_name(at + 1) && self.is(at + 2, "set") && self.get(at + 4).is_some_and(|t| t.text == "=") {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "delete" => {
                if self.is(at + 1, "from")
                    && self.is_name(at + 2)
                    && (self.any(at + 3, &["where", "limit"]) || self.ends(at + 3))
                {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "drop" | "alter" | "create" | "truncate" | "rename" => self.definition(at, word),
            "exec" | "execute" => {
                let open = self.kind(at + 1) == Some(Kind::Left)
                    && (self.kind(at + 2) == Some(Kind::Variable)
                        || self.get(at + 2).is_some_and(|t| {
                            t.text == "@" || matches!(t.kind, Kind::Text | Kind::Open) && word == "exec"
                        }));
                let procedure = self.get(at + 1).is_some_and(|next| {
                    next.kind == Kind::Word
                        && (next.text.starts_with("xp_") || next.text.starts_with("sp_") || next.text == "immediate")
                        || next.text == "master" && self.kind(at + 2) == Some(Kind::Dot)
                });
                if open || procedure || self.kind(at + 1) == Some(Kind::Variable) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "declare" => {
                if self.kind(at + 1) == Some(Kind::Variable) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "waitfor" => {
                if self.any(at + 1, &["delay", "time"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "into" => {
                if self.any(at + 1, &["outfile", "dumpfile"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "load" => {
                if self.is(at + 1, "data") && self.any(at + 2, &["infile", "local", "low_priority", "concurrent"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "merge" => {
                if self.is(at + 1, "into") && self.any(at + 3, &["using", "as"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "procedure" => {
                if self.is(at + 1, "analyse") && self.kind(at + 2) == Some(Kind::Left) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "handler" => {
                if self.any(at + 2, &["open", "read", "close"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "order" | "group" => {
                let end = self.kind(at + 2);
                let counted = self.is(at + 1, "by") && end == Some(Kind::Number);
                let digit_in_front = at == 1 && self.kind(0) == Some(Kind::Number);
                if self.is(at + 1, "by") && self.broken && at <= 2
                    || counted && (digit_in_front || matches!(self.kind(at + 3), Some(Kind::Comment)))
                    || self.is(at + 1, "by")
                        && matches!(end, Some(Kind::Text))
                        && self.get(at + 2).is_some_and(|t| t.text.starts_with('`'))
                {
                    self.hit(Rule::SqlClause, at);
                }
            }
            "having" | "where" => {
                let compared = self.get(at + 1).is_some_and(is_operand)
                    && self.get(at + 2).is_some_and(|t| t.kind == Kind::Compare)
                    && self.get(at + 3).is_some_and(is_operand);
                let literals = compared && is_literal(&self.tokens[at + 1]) && is_literal(&self.tokens[at + 3]);
                let appended = at == 0 || self.broken && at <= 2 || at == 1 && is_literal(&self.tokens[0]);
                if literals
                    || compared
                        && appended
                        && word == "having"
                        && (is_literal(&self.tokens[at + 1]) || is_literal(&self.tokens[at + 3]))
                    || compared && self.broken && at <= 2
                {
                    self.hit(Rule::SqlClause, at);
                }
            }
            "like" | "rlike" | "regexp" => {
                let bracket = self.kind(at + 1) == Some(Kind::Left)
                    && self.get(at + 1).is_some_and(|t| t.start == self.tokens[at].end());
                let behind = at > 0 && self.kind(at - 1) == Some(Kind::Right);
                let wildcard = self
                    .get(at + 1)
                    .is_some_and(|t| matches!(t.kind, Kind::Text | Kind::Open) && t.text.get(1..2) == Some("%"));
                if bracket && behind || wildcard {
                    self.hit(Rule::SqlClause, at);
                }
            }
            "if" | "iif" | "case" => {
                let compared = self.is_call(at)
                    && self.get(at + 2).is_some_and(|t| matches!(t.kind, Kind::Number | Kind::Text))
                    && self.get(at + 3).is_some_and(|t| t.text == "=");
                let when = self.is(at + 1, "when")
                    && (self.get(at + 3).is_some_and(|t| t.kind == Kind::Compare)
                        || self.kind(at + 2) == Some(Kind::Left));
                let calls = word == "if" && self.is_call(at) && self.is_known_call(at + 2);
                if compared || when || calls {
                    self.hit(Rule::SqlClause, at);
                }
            }
            "as" => {
                let quoted = |token: Option<&Token<'_>>| {
                    token.is_some_and(|t| matches!(t.kind, Kind::Text | Kind::Open) && t.text.contains('`'))
                };
                if quoted(self.get(at + 1)) && self.is(at + 2, "from") {
                    self.hit(Rule::SqlSelect, at);
                }
            }
            _ => {}
        }
    }

    fn union(&mut self, at: usize) {
        let mut next = self.skip(at + 1, |token| {
            token.is("all") || token.is("distinct") || token.is("distinctrow") || token.kind == Kind::Left
        });
        if !self.is(next, "select") {
            return;
        }
        next = self.skip(next + 1, |token| token.is("all") || token.is("distinct"));
        let english = self.kind(next) == Some(Kind::Word)
            && !self.is(next, "null")
            && !self.is_call(next)
            && !matches!(self.kind(next + 1), Some(Kind::Comma | Kind::Comment | Kind::Dot))
            && !(self.is(next + 1, "from") && !self.any(next + 2, ENGLISH));
        if !english {
            self.hit(Rule::SqlUnion, at);
        }
    }

    fn select(&mut self, at: usize) {
        let next = self.skip(at + 1, |token| {
            token.is("all") || token.is("distinct") || token.is("top") || token.kind == Kind::Left
        });
        let end = self.list(next);
        let from = self.is(end, "from");
        let short = end - next <= 2;
        let plain = short && self.kind(next) == Some(Kind::Word);
        let telling = self.is_known_call(next)
            || self.kind(next) == Some(Kind::Variable)
            || self.get(next).is_some_and(|t| t.text == "*")
                && (from || self.ends(next + 1) || self.kind(next + 1) == Some(Kind::Right))
            || matches!(self.kind(next), Some(Kind::Number | Kind::Text | Kind::Open))
                && matches!(
                    self.kind(next + 1),
                    Some(Kind::Comma | Kind::Comment | Kind::Right | Kind::Arithmetic | Kind::Semicolon)
                )
                && !self.is(next + 1, "from")
            || self.is(next, "null") && !plain
            || self.is(next, "case") && self.is(next + 1, "when")
            || self.any(next, &["null"])
                && (self.ends(next + 1) || matches!(self.kind(next + 1), Some(Kind::Comma | Kind::Right)));
        let sourced = from
            && self.is_name(end + 1)
            && !self.get(next).is_some_and(|token| listed(ENGLISH, token.text))
            && (self.any(end + 2, &["where", "limit", "order", "group", "having", "union", "join"])
                || self.kind(end + 2) == Some(Kind::Dot)
                || self
                    .get(end + 2)
                    .is_none_or(|t| matches!(t.kind, Kind::Comment | Kind::Semicolon | Kind::Right | Kind::Open))
                || matches!(self.kind(end + 1), Some(Kind::Variable)));
        if telling || sourced {
            self.hit(Rule::SqlSelect, at);
        }
    }

    /// Where the list behind SELECT ends: at FROM, or at what no list has.
    fn list(&self, from: usize) -> usize {
        let mut at = from;
        let mut name = false;
        while let Some(token) = self.get(at) {
            let word = matches!(token.kind, Kind::Word | Kind::Text | Kind::Number | Kind::Variable);
            let joined = token.is("as");
            if at - from > 64
                || token.is("from")
                || matches!(token.kind, Kind::Semicolon | Kind::Comment)
                || word && name && !joined
            {
                break;
            }
            name = word && !joined;
            at += 1;
        }
        at
    }

    fn definition(&mut self, at: usize, word: &str) {
        let objects = &[
            "column",
            "database",
            "event",
            "function",
            "index",
            "login",
            "procedure",
            "role",
            "schema",
            "sequence",
            "table",
            "tablespace",
            "trigger",
            "user",
            "view",
        ];
        let mut object = self.skip(at + 1, |token| token.is("temporary") || token.is("or") || token.is("replace"));
        if !self.any(object, objects) {
            return;
        }
        object = self.skip(object + 1, |token| token.is("if") || token.is("not") || token.is("exists"));
        let end = if self.kind(object + 1) == Some(Kind::Dot) { object + 3 } else { object + 1 };
        let goes_on = match word {
            "create" => self.kind(end) == Some(Kind::Left) || self.any(end, &["as", "returns", "identified", "on"]),
            "alter" => self.any(end, &["add", "drop", "modify", "rename", "change", "disable", "set"]),
            _ => false,
        };
        let uppercase = {
            let token = self.tokens[at];
            self.view.text[token.start..token.end()].bytes().all(|byte| byte.is_ascii_uppercase())
        };
        let ended = self.is_name(object)
            && (self.ends(end) || self.any(end, &["cascade", "restrict"]))
            && (uppercase || word != "create" && (self.broken || self.get(end).is_some()));
        if self.is_name(object) && (goes_on || ended) {
            self.hit(Rule::SqlStatement, at);
        }
    }

    /// What follows a semicolon, if it is a statement.
    fn stacked(&mut self, at: usize) {
        let statement = match self.get(at).map(|token| token.text) {
            Some("select") => {
                self.is_call(at + 1)
                    || matches!(self.kind(at + 1), Some(Kind::Number | Kind::Text | Kind::Arithmetic | Kind::Variable))
            }
            Some("insert") => self.is(at + 1, "into") && !self.any(at + 2, ENGLISH),
            Some("update") => self.is(at + 2, "set"),
            Some("delete") => self.is(at + 1, "from") && !self.any(at + 2, ENGLISH),
            Some("drop" | "create" | "alter") => {
                self.any(at + 1, &["table", "database", "user", "login", "procedure", "function", "view", "trigger"])
                    && !self.any(at + 2, ENGLISH)
            }
            Some("truncate") => self.is(at + 1, "table") || self.get(at + 1).is_some_and(|t| t.text.starts_with('[')),
            Some("exec" | "execute" | "declare" | "waitfor" | "shutdown" | "begin" | "call" | "grant") => {
                self.ends(at + 1)
                    || matches!(self.kind(at + 1), Some(Kind::Variable | Kind::Left))
                    || self.any(at + 1, &["delay", "with"])
            }
            _ => false,
        };
        let begins = self.get(at).is_some_and(|token| token.text == "shutdown" || token.text == "waitfor")
            || self.kind(at + 1).is_some();
        if statement && begins {
            self.hit(Rule::SqlStacked, at);
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
        let operator = self.tokens[at].text;
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
        if keyed && (operator != "?" || typed || self.broken) || column {
            self.hit(Rule::SqlJson, at.saturating_sub(1));
        }
    }

    fn cast(&mut self, at: usize) {
        let tight = at > 0
            && self.tokens[at - 1].end() == self.tokens[at].start
            && self.get(at + 1).is_some_and(|t| t.start == self.tokens[at].end());
        let value = at > 0 && matches!(self.tokens[at - 1].kind, Kind::Word | Kind::Text | Kind::Right | Kind::Number);
        if tight && value && self.get(at + 1).is_some_and(|name| name.kind == Kind::Word && listed(TYPES, name.text)) {
            self.hit(Rule::SqlCast, at - 1);
        }
    }

    /// `1.e(…)`, `1.e.tables`: MySQL reads a number with an empty exponent.
    fn exponent(&mut self, at: usize) {
        let number = self.tokens[at];
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
        for at in 0..self.tokens.len() {
            let name = self.tokens[at];
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
                if at > 1 && self.tokens[at - 1].kind == Kind::Left && self.is_known_call(at - 2) {
                    self.hit(Rule::SqlNested, at);
                }
                if at == 0 && self.dangles() {
                    self.hit(Rule::SqlDangling, at);
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
            && self.tokens.iter().all(|token| token.kind != Kind::Right)
            && self.kind(2).is_none_or(|kind| kind != Kind::Word)
    }
}

fn odd_quotes(text: &str) -> bool {
    [b'\'', b'"', b'`'].iter().any(|quote| text.bytes().filter(|byte| byte == quote).count() % 2 == 1)
}
