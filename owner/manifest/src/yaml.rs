//! YAML with positions, read in the one way that all Kubernetes tools agree on.
//!
//! Every value of a manifest comes through this parser, so the text that is edited and the objects
//! that are judged cannot differ. What YAML 1.1 (kubectl) and 1.2 read differently is refused.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use crate::error::{ManifestError, Place, YamlProblem};
use crate::scalar::plain;

/// Longest text read, bytes.
pub const MAX_TEXT_BYTES: usize = 8 << 20;
/// Most values in one text, aliases counted as often as they are used.
const MAX_NODES: usize = 500_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 100;

/// One value with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) kind: NodeKind,
    /// Its bytes in the text, quotes and brackets included; empty for a value that is not written.
    pub(crate) range: Range<usize>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 0.
    pub(crate) column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeKind {
    Scalar { value: Value, style: Style },
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Node)>, flow: bool },
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    Block,
}

impl Node {
    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Key and value of a mapping.
    pub(crate) fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        match &self.kind {
            NodeKind::Mapping { entries, .. } => {
                entries.iter().find(|(name, _)| name.text() == Some(key))
            }
            _ => None,
        }
    }

    /// A scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { value, .. } => value.as_str(),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The node at a path such as `spec.containers[0].image`, or the deepest one on the way.
    pub(crate) fn nearest(&self, path: &str) -> &Node {
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.items().get(index),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The line of the key or item at `path`, or of the deepest one on the way.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        for step in steps(path) {
            let next = match step {
                Step::Key(key) => node.entry(key).map(|(key, value)| (key.line, value)),
                Step::Index(index) => node.items().get(index).map(|item| (item.line, item)),
            };
            let Some((found, next)) = next else { break };
            (line, node) = (found, next);
        }
        line
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Scalar { value, .. } => value.clone(),
            NodeKind::Sequence(items) => items.iter().map(Node::to_json).collect(),
            NodeKind::Mapping { entries, .. } => {
                let entries = entries
                    .iter()
                    .filter_map(|(key, value)| Some((key.text()?.to_owned(), value.to_json())));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Splits `a.b[0].c`; keys with dots in them are not reachable, which only costs a line number.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    path.split(['.', '[']).filter(|step| !step.is_empty()).map(|step| {
        match step.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => Step::Index(index),
            None => Step::Key(step),
        }
    })
}

/// The documents of a text; empty ones are left out.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, ManifestError> {
    if text.len() > MAX_TEXT_BYTES {
        let problem = YamlProblem::TooLarge { what: "text", limit: MAX_TEXT_BYTES };
        return Err(ManifestError::new(Place::default(), problem));
    }
    let mut reader = Reader::new(text);
    let mut documents = Vec::new();
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                reader.anchors.clear();
                reader.document += 1;
                let (event, span) = reader.next()?;
                let node = reader.node(event, span, 0)?;
                let empty = matches!(
                    &node.kind,
                    NodeKind::Scalar { value: Value::Null, style: Style::Plain }
                );
                if !empty {
                    documents.push(node);
                }
            }
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            _ => return Err(reader.error(&span, YamlProblem::Syntax("stray content".into()))),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    /// Byte offset of each character, and of the end.
    offsets: Vec<usize>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    document: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        Self {
            parser: Parser::new_from_str(text),
            text,
            offsets,
            anchors: HashMap::new(),
            nodes: 0,
            document: 0,
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), ManifestError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let place = self.place(error.marker());
                Err(ManifestError::new(place, YamlProblem::Syntax(error.info().into())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, ManifestError> {
        self.count(&span, 1)?;
        if depth > MAX_DEPTH {
            let problem = YamlProblem::TooLarge { what: "nesting", limit: MAX_DEPTH };
            return Err(self.error(&span, problem));
        }
        let mut range = self.range(&span);
        range.start = self.after_anchor(range.start);
        let (kind, anchor) = match event {
            Event::Alias(id) => return self.alias(id, &span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref())?;
                range.end = self.scalar_end(&range, style);
                (self.scalar(&text, style, &span)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref())?;
                let (items, end) = self.sequence(depth)?;
                range.end = end;
                (NodeKind::Sequence(items), anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref())?;
                let flow = self.text[range.start..].starts_with('{');
                let (entries, end) = self.mapping(depth)?;
                range.end = end;
                (NodeKind::Mapping { entries, flow }, anchor)
            }
            _ => return Err(self.error(&span, YamlProblem::Syntax("value missing".into()))),
        };
        let node = Node { kind, range, line: span.start.line(), column: span.start.col() };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<(Vec<Node>, usize), ManifestError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((items, self.range(&span).end));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<(Vec<(Node, Node)>, usize), ManifestError> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((entries, self.range(&span).end));
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text().map(str::to_owned) else {
                return Err(self.error(&span, YamlProblem::KeyType));
            };
            if name == "<<" {
                return Err(self.error(&span, YamlProblem::MergeKey));
            }
            if !seen.insert(name.clone()) {
                return Err(self.error(&span, YamlProblem::DuplicateKey(name)));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            entries.push((key, value));
        }
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node, ManifestError> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(self.error(span, YamlProblem::Syntax("alias without anchor".into())));
        };
        self.count(span, size(&node))?;
        Ok(node)
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        span: &Span,
    ) -> Result<NodeKind, ManifestError> {
        let (value, style) = match style {
            ScalarStyle::Plain => {
                let value = plain(text).map_err(|problem| self.error(span, problem))?;
                (value, Style::Plain)
            }
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                (Value::String(text.into()), Style::Quoted)
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                (Value::String(text.into()), Style::Block)
            }
        };
        Ok(NodeKind::Scalar { value, style })
    }

    /// The parser's span of an anchored value begins with the anchor.
    fn after_anchor(&self, start: usize) -> usize {
        let written = self.text.get(start..).unwrap_or_default();
        if !written.starts_with('&') {
            return start;
        }
        let anchor = written.find(char::is_whitespace).unwrap_or(written.len());
        let value = written.get(anchor..).unwrap_or_default().trim_start();
        start + written.len() - value.len()
    }

    /// The parser's span of a quoted scalar goes on to the next token.
    fn scalar_end(&self, range: &Range<usize>, style: ScalarStyle) -> usize {
        let written = self.text.get(range.clone()).unwrap_or_default();
        let quote = match style {
            ScalarStyle::SingleQuoted => '\'',
            ScalarStyle::DoubleQuoted => '"',
            ScalarStyle::Plain => return range.start + written.trim_end().len(),
            ScalarStyle::Literal | ScalarStyle::Folded => return range.end,
        };
        let mut chars = written.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            let doubled = quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == quote);
            if (c == '\\' && quote == '"') || (c == quote && doubled) {
                chars.next();
            } else if c == quote {
                return range.start + at + 1;
            }
        }
        range.end
    }

    fn refuse_tag(
        &self,
        span: &Span,
        tag: Option<&saphyr_parser::Tag>,
    ) -> Result<(), ManifestError> {
        match tag {
            None => Ok(()),
            Some(tag) => {
                let name = format!("{}{}", tag.handle, tag.suffix);
                Err(self.error(span, YamlProblem::Tag(name)))
            }
        }
    }

    fn count(&mut self, span: &Span, more: usize) -> Result<(), ManifestError> {
        self.nodes += more;
        match self.nodes > MAX_NODES {
            true => {
                let problem = YamlProblem::TooLarge { what: "number of values", limit: MAX_NODES };
                Err(self.error(span, problem))
            }
            false => Ok(()),
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let at =
            |marker: &Marker| self.offsets.get(marker.index()).copied().unwrap_or(self.text.len());
        at(&span.start)..at(&span.end)
    }

    fn place(&self, marker: &Marker) -> Place {
        Place { document: self.document, line: Some(marker.line()), ..Place::default() }
    }

    fn error(&self, span: &Span, problem: YamlProblem) -> ManifestError {
        ManifestError::new(self.place(&span.start), problem)
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        NodeKind::Scalar { .. } => 1,
        NodeKind::Sequence(items) => 1 + items.iter().map(size).sum::<usize>(),
        NodeKind::Mapping { entries, .. } => {
            1 + entries.iter().map(|(_, value)| 1 + size(value)).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, expect: Result<Value, &str>) {
        let found = parse(text)
            .map(|documents| Value::Array(documents.iter().map(Node::to_json).collect()));
        match (found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(found), Err(expect)) => assert!(found.to_string().contains(expect), "{found}"),
            (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn documents_are_read() {
        check("a: 1\n---\n---\nb: [x, {c: d}]\n", Ok(json!([{"a": 1}, {"b": ["x", {"c": "d"}]}])));
        check("# only\n---\n# comments\n", Ok(json!([])));
        check("a: &x {b: 1}\nc: *x\n", Ok(json!([{"a": {"b": 1}, "c": {"b": 1}}])));
        check("a: |\n  x\n  y\nb: >-\n  x\n  y\n", Ok(json!([{"a": "x\ny\n", "b": "x y"}])));
    }

    #[test]
    fn what_hides_a_meaning_is_refused() {
        check("a: 1\na: 2\n", Err("\"a\" appears twice"));
        check("a: !!binary x\n", Err("tag"));
        check("a: &x {b: 1}\nc:\n  <<: *x\n", Err("merge"));
        check("1: a\n", Err("key is not a text"));
        check("a: [1\n", Err("not valid YAML"));
        check("a: yes\n", Err("manifest:1: \"yes\" is read"));
        let deep = "[".repeat(200) + &"]".repeat(200);
        check(&deep, Err("nesting"));
    }

    #[test]
    fn attack_alias_bomb() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            let items = vec![alias; 10].join(", ");
            text += &format!("a{level}: &a{level} [{items}]\n");
        }
        check(&text, Err("number of values"));
    }

    #[test]
    fn ranges_are_the_bytes_of_each_value() {
        let text = "é: 'ü'\nb:\n  - \"x\"   # c\n  - plain\nc: {d: e}\nf:\n  g: h\n";
        let documents = parse(text).unwrap();
        let check = |path: &str, expect: &str| {
            let node = documents[0].nearest(path);
            assert_eq!(&text[node.range.clone()], expect, "{path}");
        };
        check("é", "'ü'");
        check("b[0]", "\"x\"");
        check("b[1]", "plain");
        check("c", "{d: e}");
        assert_eq!(documents[0].line_of("f.g"), 7);
        assert_eq!(documents[0].line_of("f.g.none"), 7);
    }
}
