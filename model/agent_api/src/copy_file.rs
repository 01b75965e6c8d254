//! CopyFile as the policy sees it: what is made and where, without the contents.

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

/// The input document.
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
}

impl PolicyRequest for CopyFileRequest {
    fn rule_name(&self) -> &'static str {
        NAME
    }

    fn to_input(&self) -> Result<Value, InputError> {
        let file_type = FileType::of(self);
        let symlink_target = match file_type {
            FileType::Symlink => Some(
                String::from_utf8(self.data.clone())
                    .map_err(|_| InputError::SymlinkTarget { path: self.path.clone() })?,
            ),
            _ => None,
        };
        let input = CopyFileInput {
            path: self.path.clone(),
            file_type,
            symlink_target,
            file_size: self.file_size,
            file_mode: self.file_mode,
            dir_mode: self.dir_mode,
            uid: self.uid,
            gid: self.gid,
            offset: self.offset,
        };
        serde_json::to_value(input).map_err(json_error)
    }

    /// Takes the input document (`file_type` present) or the message's own fields.
    fn from_json(json: Value) -> Result<Self, InputError> {
        if json.get("file_type").is_none() {
            return serde_json::from_value(json).map_err(json_error);
        }
        let input: CopyFileInput = serde_json::from_value(json).map_err(json_error)?;
        let mut request = Self {
            path: input.path,
            file_size: input.file_size,
            file_mode: input.file_mode,
            dir_mode: input.dir_mode,
            uid: input.uid,
            gid: input.gid,
            offset: input.offset,
            data: input.symlink_target.map(String::into_bytes).unwrap_or_default(),
            ..Self::default()
        };
        if FileType::of(&request) != input.file_type {
            request.file_mode = request.file_mode & !TYPE_MASK | input.file_type.bits();
        }
        Ok(request)
    }
}

fn json_error(err: serde_json::Error) -> InputError {
    InputError::Json { message: NAME, detail: err.to_string() }
}
