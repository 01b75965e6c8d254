//! How many operations of the rules are one in another. The engine calls itself for each, when it reads, evaluates and drops them, and its
//! own limit counts brackets only: `1+1+…` or `a.b.…` of a few ten thousand takes all of a thread's stack.
//!
//! The count is never too small by more than the operands before commas, none of which is above another, and never much too
//! large: each character of an operator counts, and so does each bracket. An expression ends at a comma, at a semicolon, with its bracket, or with a line
//! that neither an operator nor a parenthesis continues. `a, b in c` is one operation, so in parentheses, and in a bracket with `in`, what stands before
//! a comma is added.
//!
//! Rules and functions that ask for one another in a long row are not counted: the engine goes down one such row as it evaluates. They are the
//! policy's owner's. Functions that come round to themselves are refused (`recursion`), and so is a rule of many loops (`MAX_LOOPS`).

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
    /// Whether what stands before a comma is an operand of what stands behind it, too: in parentheses, and in all brackets with `a, b in c`.
    joins: bool,
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
                self.innermost.joins = c == '(';
            }
            ']' | '}' | ')' => {
                let inner = match level.joins {
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
                level.joins |= is_in && level.before > 0;
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
        *self = Self { before, joins: self.joins, ..Self::default() };
    }
}
