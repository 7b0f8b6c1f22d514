//! Statements, and the clauses that only they have.

use super::{Scan, is_literal, is_operand};
use crate::catalogue::Rule;
use crate::cut;
use crate::sql::tokens::{Kind, Token};
use crate::sql::words::ENGLISH;
use crate::view::listed;

impl Scan<'_, '_> {
    pub(super) fn keyword(&mut self, at: usize, word: &str) {
        match word {
            "union" => self.union(at),
            "select" => self.select(at),
            "insert" | "replace" if self.is(at + 1, "into") && self.is_name(at + 2) => {
                let mut end = at + 3;
                while self.kind(end) == Some(Kind::Dot) {
                    end += 2;
                }
                if self.kind(end) == Some(Kind::Left) || self.any(end, &["values", "select", "set", "value"]) {
                    self.hit(Rule::SqlStatement, at);
                }
            }
            "update"
                if self.is_name(at + 1)
                    && self.is(at + 2, "set")
                    && self.get(at + 4).is_some_and(|t| t.text == "=") =>
            {
                self.hit(Rule::SqlStatement, at);
            }
            "delete"
                if self.is(at + 1, "from")
                    && self.is_name(at + 2)
                    && (self.any(at + 3, &["where", "limit"]) || self.ends(at + 3)) =>
            {
                self.hit(Rule::SqlStatement, at);
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
            "declare" if self.kind(at + 1) == Some(Kind::Variable) => {
                self.hit(Rule::SqlStatement, at);
            }
            "waitfor" if self.any(at + 1, &["delay", "time"]) => {
                self.hit(Rule::SqlStatement, at);
            }
            "into" if self.any(at + 1, &["outfile", "dumpfile"]) => {
                self.hit(Rule::SqlStatement, at);
            }
            "load"
                if self.is(at + 1, "data") && self.any(at + 2, &["infile", "local", "low_priority", "concurrent"]) =>
            {
                self.hit(Rule::SqlStatement, at);
            }
            "merge" if self.is(at + 1, "into") && self.any(at + 3, &["using", "as"]) => {
                self.hit(Rule::SqlStatement, at);
            }
            "procedure" if self.is(at + 1, "analyse") && self.kind(at + 2) == Some(Kind::Left) => {
                self.hit(Rule::SqlStatement, at);
            }
            "handler" if self.any(at + 2, &["open", "read", "close"]) => {
                self.hit(Rule::SqlStatement, at);
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
                let literals = compared && is_literal(&self.at(at + 1)) && is_literal(&self.at(at + 3));
                let appended = at == 0 || self.broken && at <= 2 || at == 1 && is_literal(&self.at(0));
                if literals
                    || compared
                        && appended
                        && word == "having"
                        && (is_literal(&self.at(at + 1)) || is_literal(&self.at(at + 3)))
                    || compared && self.broken && at <= 2
                {
                    self.hit(Rule::SqlClause, at);
                }
            }
            "like" | "rlike" | "regexp" => {
                let bracket = self.kind(at + 1) == Some(Kind::Left)
                    && self.get(at + 1).is_some_and(|t| t.start == self.at(at).end());
                let behind = at > 0 && self.kind(at - 1) == Some(Kind::Right);
                let wildcard = self.get(at + 1).is_some_and(|t| {
                    matches!(t.kind, Kind::Text | Kind::Open) && t.text.as_bytes().get(1) == Some(&b'%')
                });
                let open = self.kind(at + 1) == Some(Kind::Left) && self.tokens.len() < 5;
                let cut = self.broken && at == 1 && word != "like";
                if (bracket || open) && behind || wildcard || cut {
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
        // A trade union's select committee has none of these.
        let sourced = self.is(next + 1, "from") && !self.any(next + 2, ENGLISH);
        let listed = matches!(self.kind(next + 1), Some(Kind::Comma | Kind::Comment | Kind::Dot));
        let value = self.kind(next) != Some(Kind::Word) || self.is(next, "null") || self.is_call(next);
        if value || listed || sourced {
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
            let token = self.at(at);
            cut::between(self.view.text, token.start, token.end()).bytes().all(|byte| byte.is_ascii_uppercase())
        };
        let ended = self.is_name(object)
            && (self.ends(end) || self.any(end, &["cascade", "restrict"]))
            && (uppercase || word != "create" && (self.broken || self.get(end).is_some()));
        if self.is_name(object) && (goes_on || ended) {
            self.hit(Rule::SqlStatement, at);
        }
    }

    /// What follows a semicolon, if it is a statement.
    pub(super) fn stacked(&mut self, at: usize) {
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
        let keywords =
            &["select", "insert", "update", "delete", "drop", "create", "alter", "exec", "execute", "declare"];
        if statement && begins || self.broken && at == 2 && self.any(at, keywords) {
            self.hit(Rule::SqlStacked, at);
        }
    }
}
