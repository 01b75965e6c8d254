//! How many operations of the rules are one in another. The engine calls itself for each, when it reads, evaluates and drops them, and its
//! own limit counts brackets only: `1+1+…` or `a.b.…` of a few ten thousand takes all of a thread's stack.
//!
//! The count is never too small by more than the operands before commas outside of parentheses, none of which is above another, and never much too
//! large: each character of an operator counts, and so does each bracket. An expression ends at a comma, at a semicolon, with its bracket, or with a line
//! that neither an operator nor a parenthesis continues. In parentheses `a, b in c` is one operation, so what stands before a comma there is added.
//!
//! Rules that ask for one another in a long row are not counted: the engine goes down one such row as it evaluates. They are the policy's owner's.

/// Characters of operators; `in` is one, too.
const OPERATORS: &str = ".+-*/%&|<>=!:";

/// The expressions that are open.
pub(crate) struct Depth {
    levels: Vec<Level>,
    innermost: Level,
}

/// Between two brackets.
#[derive(Default)]
struct Level {
    /// Of the expression that is read.
    now: usize,
    /// Of the deepest one before it.
    before: usize,
    after_operator: bool,
    new_line: bool,
    /// Whether a parenthesis opened it.
    in_parentheses: bool,
}

impl Depth {
    pub(crate) fn new() -> Self {
        Self { levels: Vec::new(), innermost: Level::default() }
    }

    /// One character that is in no text and no comment, and whether it is of the word `in`; gives how deep the expression is now.
    pub(crate) fn see(&mut self, c: char, is_in: bool) -> usize {
        let level = &mut self.innermost;
        match c {
            '\n' => level.new_line = true,
            c if c.is_whitespace() => {}
            '[' | '{' | '(' => {
                // The engine takes a parenthesis on the next line for that of a call.
                match c {
                    '(' => (level.after_operator, level.new_line) = (false, false),
                    _ => level.operand(),
                }
                level.now = level.now.saturating_add(1);
                self.levels.push(std::mem::take(level));
                self.innermost.in_parentheses = c == '(';
            }
            ']' | '}' | ')' => {
                let inner = match level.in_parentheses {
                    true => level.now.saturating_add(level.before),
                    false => level.now.max(level.before),
                };
                let inner = inner.saturating_add(2);
                *level = self.levels.pop().unwrap_or_default();
                level.now = level.now.max(inner);
                level.after_operator = false;
            }
            ',' | ';' => level.end(),
            c if is_in || OPERATORS.contains(c) => {
                level.now = level.now.saturating_add(1);
                (level.after_operator, level.new_line) = (true, false);
            }
            _ => level.operand(),
        }
        self.innermost.now
    }
}

impl Level {
    fn operand(&mut self) {
        if self.new_line && !self.after_operator {
            self.end();
        }
        (self.after_operator, self.new_line) = (false, false);
    }

    fn end(&mut self) {
        let before = self.before.max(self.now);
        *self = Self { before, in_parentheses: self.in_parentheses, ..Self::default() };
    }
}
