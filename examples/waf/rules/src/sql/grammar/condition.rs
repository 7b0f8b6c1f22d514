//! Conditions that are appended to a statement, and quotes that are closed to append them.

use super::{Scan, is_comparison, is_literal, is_logic, is_operand, odd_quotes};
use crate::catalogue::Rule;
use crate::cut;
use crate::sql::tokens::Kind;
use crate::sql::words::TELLING;
use crate::view::listed;

impl Scan<'_, '_> {
    /// `'--`, `');`, `' #`, `'||'`, `' order by 3`.
    pub(super) fn breakout(&mut self) {
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
                    && self.at(0).text.len() == 1
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

    /// `or 1=1`, `and 'a'='a'`, `' or name like '%`, `1 or sleep(5)`.
    pub(super) fn condition(&mut self, at: usize) {
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
        let text = self.at(at).text;
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
    pub(super) fn literals(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1).and_then(|before| self.get(before)) else { return };
        let next = self.skip(at + 1, |token| matches!(token.kind, Kind::Left | Kind::Arithmetic));
        let Some(after) = self.get(next) else { return };
        let own_quote = before.text.len() > 1 && before.kind == Kind::Text;
        let direct = before.end() == self.at(at).start && after.start == self.at(at).end();
        let markup = || self.markup || before.start > 0 && cut::until(self.view.text, before.start).ends_with('=');
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
}
