//! Cuts a rule file into its directives.
//!
//! The engine would cut the text by itself, and lose rules at some characters without a word. What it gets is each directive
//! [written anew](Directive::rewritten), so that it finds what is found here.

use std::iter::Peekable;
use std::str::CharIndices;

use crate::{Malformed, Part, Place};

/// The longest directive, in bytes. The longest of the Core Rule Set has 10 KB.
const LONGEST: usize = 256 << 10;

/// A directive with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive<'a> {
    /// Where it begins.
    pub at: Place,
    /// All of it, as it was written.
    pub text: &'a str,
    /// Its name.
    pub name: String,
    /// Its arguments, without quotes and with escapes resolved.
    pub arguments: Vec<String>,
}

/// The operator of a `SecRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator<'a> {
    /// Its name in lower case: `rx` if none is written.
    pub name: String,
    /// What it looks for.
    pub argument: &'a str,
}

impl Directive<'_> {
    /// Returns whether this is its name, in whatever case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Returns the operator of a `SecRule`.
    pub fn operator(&self) -> Option<Operator<'_>> {
        let text = self.arguments.get(1).filter(|_| self.is("SecRule"))?.trim();
        let text = text.strip_prefix('!').unwrap_or(text).trim_start();
        let Some(rest) = text.strip_prefix('@') else {
            return Some(Operator { name: "rx".to_owned(), argument: text });
        };
        let (name, argument) = rest.split_once(|one: char| one.is_ascii_whitespace()).unwrap_or((rest, ""));
        Some(Operator { name: name.to_ascii_lowercase(), argument: argument.trim_start() })
    }

    /// Returns the names of the data files that it reads, as they are written; `None` if it reads none.
    pub fn data_files(&self) -> Option<Vec<&str>> {
        let Operator { name, argument } = self.operator()?;
        let reads = ["pmfromfile", "pmf", "ipmatchfromfile", "ipmatchf"].contains(&name.as_str());
        reads.then(|| argument.split_whitespace().collect())
    }

    /// Returns it in one line, with every argument in quotes.
    pub fn rewritten(&self) -> String {
        let mut line = self.name.clone();
        for argument in &self.arguments {
            line.push_str(" \"");
            for one in argument.chars() {
                match one {
                    '\n' => line.push_str("\\n"),
                    '\r' => line.push_str("\\r"),
                    '\\' | '"' => line.extend(['\\', one]),
                    one => line.push(one),
                }
            }
            line.push('"');
        }
        line
    }

    /// Returns a mistake in it.
    pub fn malformed(&self, problem: impl Into<String>) -> Malformed {
        Malformed::new(self.at.clone(), problem)
    }
}

/// Cuts a file into its directives, in order.
///
/// # Errors
/// [`Malformed`] names the line of a quote that is not closed, a character that means nothing, or what is no directive.
pub fn directives<'a>(part: &Part<'a>) -> Result<Vec<Directive<'a>>, Malformed> {
    let mut scanner = Scanner { part: *part, rest: part.text.char_indices().peekable(), line: part.first_line };
    let mut found = Vec::new();
    while let Some(directive) = scanner.directive()? {
        found.push(directive);
    }
    Ok(found)
}

struct Scanner<'a> {
    part: Part<'a>,
    rest: Peekable<CharIndices<'a>>,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn directive(&mut self) -> Result<Option<Directive<'a>>, Malformed> {
        let mut words: Vec<String> = Vec::new();
        let mut start = None;
        while let Some(&(at, one)) = self.rest.peek() {
            match one {
                ' ' | '\t' | '\r' => self.skip(),
                '\n' => {
                    self.skip();
                    if start.is_some() {
                        break;
                    }
                }
                '#' => {
                    self.skip_line();
                    if start.is_some() {
                        break;
                    }
                }
                '\\' if self.continues() => {}
                '\\' => return Err(self.wrong("a backslash outside of quotes goes before the end of a line")),
                '"' | '\'' => {
                    let Some(_) = start else { return Err(self.wrong("a directive begins with its name")) };
                    words.push(self.quoted(one)?);
                }
                one if one.is_control() || one.is_whitespace() => {
                    return Err(self.wrong(&format!("the character {one:?} means nothing here")));
                }
                _ => {
                    start.get_or_insert((at, self.line));
                    words.push(self.word()?);
                }
            }
            if start.is_some_and(|(begin, _)| at.saturating_sub(begin) > LONGEST) {
                return Err(self.wrong(&format!("a directive has at most {LONGEST} bytes")));
            }
        }
        let Some((begin, line)) = start else { return Ok(None) };
        let end = self.rest.peek().map_or(self.part.text.len(), |(at, _)| *at);
        let at = Place { file: self.part.name.to_owned(), line };
        let text = self.part.text.get(begin..end).unwrap_or_default();
        let mut words = words.into_iter();
        let name = words.next().unwrap_or_default();
        if !(name.to_ascii_lowercase().starts_with("sec") || name.to_ascii_lowercase().starts_with("include")) {
            let shown: String = name.chars().take(40).collect();
            let hint = if shown.starts_with(['{', '[', '<']) { ": the rules of another engine, perhaps" } else { "" };
            return Err(Malformed::new(at, format!("{shown:?} is no directive of SecLang{hint}")));
        }
        Ok(Some(Directive { at, text, name, arguments: words.collect() }))
    }

    fn wrong(&self, problem: &str) -> Malformed {
        Malformed::new(Place { file: self.part.name.to_owned(), line: self.line }, problem)
    }

    fn skip(&mut self) {
        if let Some((_, '\n')) = self.rest.next() {
            self.line += 1;
        }
    }

    fn skip_line(&mut self) {
        while let Some(&(_, one)) = self.rest.peek() {
            self.skip();
            if one == '\n' {
                break;
            }
        }
    }

    /// Skips a backslash with the end of the line behind it, if that is what comes.
    fn continues(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        ahead.next();
        let is_end = match ahead.next() {
            Some((_, '\n')) => true,
            Some((_, '\r')) => matches!(ahead.next(), Some((_, '\n'))),
            _ => false,
        };
        if is_end {
            while !matches!(self.rest.peek(), None | Some((_, '\n'))) {
                self.skip();
            }
            self.skip();
        }
        is_end
    }

    /// A word. A quote can begin inside of it: `TX:'/a b/'`.
    fn word(&mut self) -> Result<String, Malformed> {
        let mut word = String::new();
        while let Some(&(_, one)) = self.rest.peek() {
            if one == '\\' && self.continues() {
                continue;
            }
            match one {
                '"' | '\'' => word.push_str(&self.quoted(one)?),
                '#' => break,
                one if one.is_whitespace() || one.is_control() => break,
                one => {
                    word.push(one);
                    self.skip();
                }
            }
        }
        Ok(word)
    }

    fn quoted(&mut self, quote: char) -> Result<String, Malformed> {
        let opened = self.wrong("a quote that is not closed on its line: close it, or end the line with a backslash");
        self.skip();
        let mut text = String::new();
        while let Some(&(_, one)) = self.rest.peek() {
            match one {
                '\\' if self.continues() => {
                    while matches!(self.rest.peek(), Some((_, ' ' | '\t'))) {
                        self.skip();
                    }
                }
                '\\' => {
                    self.skip();
                    match self.rest.peek().map(|(_, one)| *one) {
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        Some('r') => text.push('\r'),
                        Some(one @ ('\\' | '"' | '\'')) => text.push(one),
                        Some(one) => text.extend(['\\', one]),
                        None => return Err(opened),
                    }
                    self.skip();
                }
                '\n' => return Err(opened),
                one => {
                    self.skip();
                    if one == quote {
                        return Ok(text);
                    }
                    text.push(one);
                }
            }
        }
        Err(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Vec<Directive<'_>>, Malformed> {
        directives(&Part { name: "a.conf", first_line: 1, text })
    }

    #[test]
    fn directives_have_their_lines_and_arguments() {
        let text = "# a comment\nSecRuleEngine On # another\n\nSecRule ARGS|\\\n  !ARGS:q \\\n    \"!@pmFromFile a.data b.data\" \\\n    \
                    \"id:1,\\\n    msg:'it\\\"s'\"\r\nSecMarker END";
        let found = scan(text).unwrap();
        let lines: Vec<_> = found.iter().map(|directive| (directive.at.line, &*directive.name)).collect();
        assert_eq!(lines, [(2, "SecRuleEngine"), (4, "SecRule"), (9, "SecMarker")]);
        assert_eq!(found[1].arguments, ["ARGS|", "!ARGS:q", "!@pmFromFile a.data b.data", "id:1,msg:'it\"s'"]);
        assert_eq!(found[2].arguments, ["END"]);
        assert!(found[1].text.starts_with("SecRule ARGS") && found[1].text.ends_with("\"\r\n"));
        let text = "SecRule TX:'/a b\\\\/' \"@rx \\\\d\\n\" 'id:1,msg:\\'a\"\\''";
        let found = scan(text).unwrap();
        assert_eq!(found[0].arguments, ["TX:/a b\\/", "@rx \\d\n", "id:1,msg:'a\"'"]);
        let rewritten = found[0].rewritten();
        assert_eq!(scan(&rewritten).unwrap()[0].arguments, found[0].arguments, "{rewritten}");
    }

    #[test]
    fn operators_and_their_data_files_are_known() {
        let rule = |operator: &str| format!("SecRule ARGS \"{operator}\" \"id:1\"");
        for (operator, name, argument) in [
            ("a b", "rx", "a b"),
            ("! @Rx  a", "rx", "a"),
            ("@detectSQLi", "detectsqli", ""),
            ("!@within a b", "within", "a b"),
        ] {
            let text = rule(operator);
            let found = scan(&text).unwrap();
            assert_eq!(found[0].operator().unwrap(), Operator { name: name.to_owned(), argument });
            assert_eq!(found[0].data_files(), None);
        }
        let text = rule("@ipMatchFromFile a.data");
        assert_eq!(scan(&text).unwrap()[0].data_files(), Some(vec!["a.data"]));
    }

    #[test]
    fn what_would_make_an_engine_lose_rules_is_a_mistake_with_its_line() {
        for (text, complaint) in [
            ("\nSecRule ARGS \"x\nSecRule ARGS \"y\" \"id:1\"", "a.conf:2: a quote that is not closed"),
            ("SecRule ARGS \"x\\", "a.conf:1: a quote"),
            ("SecRule ARGS\u{c}\"x\"", "a.conf:1: the character '\\u{c}'"),
            ("\u{a0}SecRule ARGS \"x\"", "the character"),
            ("SecRuleEngine On\n\\\\\\\\\\\\", "a.conf:2: a backslash"),
            ("\"SecRule\" ARGS", "begins with its name"),
            ("{\"dynamic\": []}", "the rules of another engine"),
            ("<IfModule a>", "no directive"),
        ] {
            let error = scan(text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert!(scan(&"\\".repeat(1 << 20)).is_err());
        assert!(scan(&format!("SecAction {}", "\\\n".repeat(1 << 16))).is_ok());
    }
}
