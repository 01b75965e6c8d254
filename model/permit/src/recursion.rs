//! Functions that call themselves, also by way of others. The engine notices rules that ask for themselves, and goes down without end in functions.
//!
//! What calls what is read from the text: a function's rules begin with its name and a parenthesis where no expression is open, and every name before
//! a parenthesis within them is a call. `with a as b` makes all calls of `a` calls of `b`.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{PACKAGE, PolicyError};
use crate::text::is_word;

/// Words that are no names.
const KEYWORDS: [&str; 8] = ["as", "default", "else", "import", "not", "package", "some", "with"];
/// The same where they are imported.
const IMPORTED: [&str; 4] = ["contains", "every", "if", "in"];

/// Refuses functions that would not end.
pub(crate) fn check_recursion(rules: &str) -> Result<(), PolicyError> {
    match Calls::of(rules).circle() {
        Some(name) => Err(PolicyError::Recursive { name }),
        None => Ok(()),
    }
}

enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Sign(char),
}

#[derive(Clone)]
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// What begins the rest and goes on as `is_in` says.
    fn take(&mut self, is_in: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_in(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn sign(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let sign = chars.next();
        self.rest = chars.as_str();
        sign
    }

    /// Behind the quote: a text ends on its line.
    fn text(&mut self) -> &'a str {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = !escaped && c == '"' || c == '\n';
            escaped = !escaped && c == '\\';
            ends
        });
        let text = self.rest.get(..end.unwrap_or(self.rest.len())).unwrap_or_default();
        self.rest = self.rest.get(text.len()..).unwrap_or_default();
        self.sign();
        text
    }

    fn is_next(&self, sign: char) -> bool {
        matches!(self.clone().next(), Some(Token::Sign(next)) if next == sign)
    }

    /// The path that begins with `first`: `a.b` and `a["b"]` alike.
    fn path(&mut self, first: &'a str) -> Vec<&'a str> {
        let mut path = vec![first];
        loop {
            let mut ahead = self.clone();
            let piece = match (ahead.next(), ahead.next()) {
                (Some(Token::Sign('.')), Some(Token::Word(piece))) => piece,
                (Some(Token::Sign('[')), Some(Token::Text(piece))) if ahead.is_next(']') => {
                    ahead.next();
                    piece
                }
                _ => return path,
            };
            path.push(piece);
            *self = ahead;
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.take(char::is_whitespace);
            match self.rest.chars().next()? {
                '#' => drop(self.take(|c| c != '\n')),
                c if is_word(c) => return Some(Token::Word(self.take(is_word))),
                _ => break,
            }
        }
        Some(match self.sign()? {
            '"' => Token::Text(self.text()),
            '`' => {
                let text = self.take(|c| c != '`');
                self.sign();
                Token::Text(text)
            }
            sign => Token::Sign(sign),
        })
    }
}

/// Which function calls which.
#[derive(Default)]
struct Calls<'a> {
    called: BTreeMap<String, BTreeSet<String>>,
    imports: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Calls<'a> {
    fn of(rules: &'a str) -> Self {
        let imported = rules.contains("future.keywords") || rules.contains("rego.v1");
        let is_keyword =
            |word: &str| KEYWORDS.contains(&word) || imported && IMPORTED.contains(&word);
        let (mut calls, mut tokens) = (Self::default(), Tokens { rest: rules });
        let (mut depth, mut in_function, mut keyword) = (0_usize, None::<String>, "");
        // where an expression has ended and no operator goes on with it, a rule begins
        let (mut goes_on, mut replaced) = (false, None::<String>);
        while let Some(token) = tokens.next() {
            match token {
                Token::Word(word) if is_keyword(word) => {
                    (goes_on, keyword) = (true, word);
                    continue;
                }
                Token::Word(word) => {
                    let path = tokens.path(word);
                    let name = calls.name(&path);
                    let is_call = tokens.is_next('(');
                    let begins = depth == 0 && (!goes_on || keyword == "default");
                    if keyword == "import" || keyword == "package" {
                        in_function = None;
                        calls.import(keyword, path, &mut tokens);
                    } else if begins {
                        in_function = is_call.then_some(name);
                    } else if keyword == "with" {
                        replaced = Some(name);
                    } else {
                        if let Some(function) = in_function.as_ref().filter(|_| is_call) {
                            calls.add(function.clone(), name.clone());
                        }
                        if let Some(replaced) = replaced.take().filter(|_| keyword == "as") {
                            calls.add(replaced, name);
                        }
                    }
                    goes_on = false;
                }
                Token::Sign('(' | '[' | '{') => (depth, goes_on) = (depth.saturating_add(1), true),
                Token::Sign(')' | ']' | '}') => {
                    (depth, goes_on) = (depth.saturating_sub(1), false);
                }
                Token::Text(_) => goes_on = false,
                Token::Sign(_) => goes_on = true,
            }
            keyword = "";
        }
        calls
    }

    fn add(&mut self, from: String, to: String) {
        self.called.entry(from).or_default().insert(to);
    }

    /// `import a.b as c`, where `as c` may be left out.
    fn import(&mut self, keyword: &str, path: Vec<&'a str>, tokens: &mut Tokens<'a>) {
        let mut ahead = tokens.clone();
        let alias = match (ahead.next(), ahead.next()) {
            (Some(Token::Word("as")), Some(Token::Word(alias))) => {
                *tokens = ahead;
                Some(alias)
            }
            _ => path.last().copied(),
        };
        if let Some(alias) = alias.filter(|_| keyword == "import") {
            self.imports.insert(alias, path);
        }
    }

    /// A function's name in the policy's own package.
    fn name(&self, path: &[&str]) -> String {
        let (first, rest) = path.split_first().unwrap_or((&"", &[]));
        let whole = match self.imports.get(first) {
            Some(meant) => [meant, rest].concat(),
            None => path.to_vec(),
        };
        match whole.as_slice() {
            ["data", package, own @ ..] if *package == PACKAGE => own.join("."),
            other => other.join("."),
        }
    }

    /// A function that comes to call itself.
    fn circle(&self) -> Option<String> {
        let mut done = BTreeSet::new();
        for start in self.called.keys() {
            let (mut row, mut in_row) = (Vec::new(), BTreeSet::new());
            let mut next = Some(start);
            loop {
                if let Some(name) = next.filter(|name| !done.contains(*name)) {
                    if !in_row.insert(name) {
                        return Some(name.clone());
                    }
                    row.push((name, self.called.get(name).into_iter().flatten()));
                }
                let Some((name, called)) = row.last_mut() else { break };
                next = called.next();
                if next.is_none() {
                    done.insert(*name);
                    in_row.remove(*name);
                    row.pop();
                }
            }
        }
        None
    }
}
