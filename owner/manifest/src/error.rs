//! What can be wrong with a manifest, and where.

use std::fmt;

/// An error with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ManifestError {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub problem: Problem,
}

/// A place in a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// File name, where one is known.
    pub file: Option<String>,
    /// Number of the YAML document in the file, from 1; 0 is the file as a whole.
    pub document: usize,
    /// Line, from 1.
    pub line: Option<usize>,
    /// Path of the field, as in `spec.containers[0].image`; empty is the document.
    pub path: String,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not YAML, or YAML that Kubernetes' tools would read in another way.
    #[error("{0}")]
    Yaml(YamlProblem),
    /// A field that the Kubernetes API (v1.33) does not have.
    #[error("unknown field")]
    UnknownField,
    /// A value of another type than the field's.
    #[error("field does not have its type: {detail}")]
    Type {
        /// What was found and expected.
        detail: String,
    },
    /// A field that is refused, and why.
    #[error("field is refused: {why}")]
    Refused {
        /// The reason from the table of fields.
        why: &'static str,
    },
    /// A value that is refused, and why.
    #[error("value {found} is refused, expected {expected}: {why}")]
    RefusedValue {
        /// The value.
        found: String,
        /// Values that are accepted.
        expected: String,
        /// Why.
        why: &'static str,
    },
    /// A value outside what Kubernetes or this project can carry out.
    #[error("value {found:?} is not usable, expected {expected}")]
    Value {
        /// The value.
        found: String,
        /// What is expected.
        expected: String,
    },
    /// A field without which nothing can be run.
    #[error("field is missing, expected {expected}")]
    Missing {
        /// What is expected.
        expected: String,
    },
    /// Another object that is named but not given.
    #[error("{what} is not in the file")]
    NotInFile {
        /// The object or key.
        what: String,
    },
    /// What a volume's files come from is neither in the file nor left to the host.
    #[error("{what} is not in the file, so what it holds cannot be pinned")]
    NotPinned {
        /// The object or field, as the annotation would name it.
        what: String,
    },
    /// A kind that is not read.
    #[error("kind {found:?} is not supported, expected {expected}")]
    Kind {
        /// `apiVersion/kind`.
        found: String,
        /// Kinds that are.
        expected: String,
    },
    /// Something like a pod in an object of a kind of which nothing is known.
    #[error("this looks like a pod, and kind {kind:?} has no rule that says what becomes of it")]
    PodInUnknownKind {
        /// `apiVersion/kind`.
        kind: String,
    },
    /// A pod that is not run as it stands here, by the rule for its kind.
    #[error("no policy can be made of this alone: {why}")]
    Shape {
        /// What the kind's controller makes of it.
        why: String,
        /// What to do instead.
        hint: String,
    },
    /// Two objects of one name, or two defaults for one thing, with different contents.
    #[error("{what} is given twice, with different contents")]
    Twice {
        /// The object or setting.
        what: String,
    },
    /// The number of pods in the file is not the one expected.
    #[error("file has {found} pods, expected {expected}")]
    PodCount {
        /// Pods found.
        found: usize,
        /// Pods expected.
        expected: &'static str,
    },
    /// An image for which no facts were given.
    #[error("image {image:?} was not resolved")]
    NoImage {
        /// The image as written.
        image: String,
    },
    /// The requests of the pod cannot be built.
    #[error(transparent)]
    Request(#[from] ah_pod::RequestError),
    /// An edited text does not mean what was meant.
    #[error("edit would change more than the images and the annotation, or has no place")]
    Edit,
}

/// What is wrong with the YAML itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamlProblem {
    /// The parser's words.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A key twice in one mapping.
    #[error("key {0:?} appears twice")]
    DuplicateKey(String),
    /// A key that is not text.
    #[error("key is not a text")]
    KeyType,
    /// A plain scalar that YAML 1.1 and 1.2 read differently.
    #[error("{0:?} is read as another value by some tools, expected quotes or a plain form")]
    Ambiguous(String),
    /// An explicit tag.
    #[error("tag {0:?} is not supported")]
    Tag(String),
    /// `<<`.
    #[error("merge keys are not supported")]
    MergeKey,
    /// Larger than a manifest may be.
    #[error("{what} exceeds {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl ManifestError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        Some(match &self.problem {
            Problem::UnknownField => "compare the spelling with `kubectl explain`",
            Problem::Yaml(YamlProblem::Ambiguous(_)) => {
                "write true or false for a switch, quotes around a text"
            }
            Problem::Refused { .. } | Problem::RefusedValue { .. } => {
                "docs/kubernetes-fields.md says what each field may be"
            }
            Problem::NotInFile { .. } => {
                "add the object to the same file, after a line `---`, or give its file too"
            }
            Problem::NotPinned { .. } => {
                "add the object to the same file, after a line `---`, or let the host choose it: annotation \
                 anchorhold.dev/unpinned: '[\"configMap/NAME\"]'"
            }
            Problem::PodInUnknownKind { .. } => {
                "give a rule for the kind (docs/kinds.md), or allow pods without a policy"
            }
            Problem::Shape { hint, .. } => hint,
            Problem::Twice { .. } => "keep the one that the cluster has",
            Problem::Edit => {
                "write metadata, annotations and image as plain lines, without anchors shared with other places"
            }
            Problem::Request(ah_pod::RequestError::User { .. }) => {
                "say the identity in securityContext: runAsUser, runAsGroup"
            }
            _ => return None,
        })
    }

    pub(crate) fn new(place: Place, problem: impl Into<Problem>) -> Self {
        Self { place, problem: problem.into() }
    }

    pub(crate) fn in_file(mut self, file: &str) -> Self {
        self.place.file = Some(file.into());
        self
    }
}

impl From<YamlProblem> for Problem {
    fn from(problem: YamlProblem) -> Self {
        Self::Yaml(problem)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file.as_deref().unwrap_or("manifest"))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if self.document > 1 {
            write!(f, ": document {}", self.document)?;
        }
        match self.path.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.path),
        }
    }
}
