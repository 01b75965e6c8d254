//! CopyFile as the policy sees it: what is made and where, and the digest of the contents instead of the contents.

use ah_digest::Sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::agent::CopyFileRequest;
use crate::input::{InputError, PolicyRequest};

/// File type bits of a mode (inode(7): `S_IFMT`, `S_IFREG`, `S_IFDIR`, `S_IFLNK`).
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

const NAME: &str = "CopyFileRequest";

/// Longest contents that the rules see as text, bytes: a name of the cluster (DNS names have at most 253) fits.
const MAX_TEXT_BYTES: usize = 256;

/// What a CopyFile request makes. The rules and the handler must both use [`FileType::of`]: a second reading of the
/// mode would let the host get a directory past a rule for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileType {
    /// `S_IFREG`.
    Regular,
    /// `S_IFDIR`.
    Directory,
    /// `S_IFLNK`; `data` is the target.
    Symlink,
    /// Any other type bits, also none.
    Unknown,
}

impl FileType {
    /// Reads the type bits of the request's `file_mode`.
    pub fn of(request: &CopyFileRequest) -> Self {
        match request.file_mode & TYPE_MASK {
            REGULAR => Self::Regular,
            DIRECTORY => Self::Directory,
            SYMLINK => Self::Symlink,
            _ => Self::Unknown,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Self::Regular => REGULAR,
            Self::Directory => DIRECTORY,
            Self::Symlink => SYMLINK,
            Self::Unknown => 0,
        }
    }
}

/// The input document. The three `data_*` members are this project's own (docs/policy-fields.md); they are null for
/// what is no regular file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyFileInput {
    #[serde(default)]
    path: String,
    file_type: FileType,
    #[serde(default)]
    symlink_target: Option<String>,
    #[serde(default)]
    file_size: i64,
    #[serde(default)]
    file_mode: u32,
    #[serde(default)]
    dir_mode: u32,
    #[serde(default)]
    uid: i32,
    #[serde(default)]
    gid: i32,
    #[serde(default)]
    offset: i64,
    /// Bytes of the request's `data`: a rule that pins a file asks for the whole of it in one request.
    #[serde(default)]
    data_size: Option<u64>,
    /// SHA-256 of the request's `data`, 64 hexadecimal digits.
    #[serde(default)]
    data_sha256: Option<Sha256>,
    /// The request's `data` where it is short UTF-8.
    #[serde(default)]
    data_text: Option<String>,
}

impl CopyFileInput {
    fn of(request: &CopyFileRequest) -> Result<Self, InputError> {
        let file_type = FileType::of(request);
        let text = || String::from_utf8(request.data.clone());
        let symlink_target = match file_type {
            FileType::Symlink => {
                Some(text().map_err(|_| InputError::SymlinkTarget { path: request.path.clone() })?)
            }
            _ => None,
        };
        let data = Some(&request.data).filter(|_| file_type == FileType::Regular);
        let short = data.filter(|data| data.len() <= MAX_TEXT_BYTES);
        Ok(Self {
            path: request.path.clone(),
            file_type,
            symlink_target,
            file_size: request.file_size,
            file_mode: request.file_mode,
            dir_mode: request.dir_mode,
            uid: request.uid,
            gid: request.gid,
            offset: request.offset,
            data_size: data.map(|data| u64::try_from(data.len()).unwrap_or(u64::MAX)),
            data_sha256: data.map(Sha256::of),
            data_text: short.and_then(|_| text().ok()),
        })
    }

    /// The contents as far as the document has them.
    fn data(&self) -> Vec<u8> {
        let text = self.symlink_target.as_ref().or(self.data_text.as_ref());
        text.map(|text| text.clone().into_bytes()).unwrap_or_default()
    }

    /// A document that says what its contents are, but does not have them, is none of a request.
    fn check_data(&self, request: &CopyFileRequest) -> Result<(), InputError> {
        let made = Self::of(request)?;
        let differs = self.data_size.is_some_and(|size| made.data_size != Some(size))
            || self.data_sha256.is_some_and(|digest| made.data_sha256 != Some(digest))
            || self.data_text.is_some() && self.data_text != made.data_text;
        match differs {
            false => Ok(()),
            true => Err(InputError::Json {
                message: NAME,
                detail: "data_size, data_sha256 or data_text is not that of the contents: \
                         give the message's own fields, with data"
                    .into(),
            }),
        }
    }
}

impl PolicyRequest for CopyFileRequest {
    fn rule_name(&self) -> &'static str {
        NAME
    }

    fn to_input(&self) -> Result<Value, InputError> {
        serde_json::to_value(CopyFileInput::of(self)?).map_err(json_error)
    }

    /// Takes the input document (`file_type` present) or the message's own fields.
    fn from_json(json: Value) -> Result<Self, InputError> {
        if json.get("file_type").is_none() {
            return serde_json::from_value(json).map_err(json_error);
        }
        let input: CopyFileInput = serde_json::from_value(json).map_err(json_error)?;
        let mut request = Self {
            path: input.path.clone(),
            file_size: input.file_size,
            file_mode: input.file_mode,
            dir_mode: input.dir_mode,
            uid: input.uid,
            gid: input.gid,
            offset: input.offset,
            data: input.data(),
            ..Self::default()
        };
        if FileType::of(&request) != input.file_type {
            request.file_mode = request.file_mode & !TYPE_MASK | input.file_type.bits();
        }
        input.check_data(&request)?;
        Ok(request)
    }
}

fn json_error(err: serde_json::Error) -> InputError {
    InputError::Json { message: NAME, detail: err.to_string() }
}
