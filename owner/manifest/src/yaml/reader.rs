//! From text to nodes, within limits.

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::Value;

use super::{Node, NodeKind, Style};
use crate::error::{ManifestError, Place, YamlProblem};
use crate::scalar::plain;

/// Longest text read, bytes.
pub const MAX_TEXT_BYTES: usize = 8 << 20;
/// Most values in one text, aliases counted as often as they are used.
const MAX_NODES: usize = 500_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 100;

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
                let flow = self.text.get(range.start..).is_some_and(|text| text.starts_with('{'));
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
