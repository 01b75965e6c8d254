//! Strict decoding: every byte of a message must belong to a field that the definition has.
//!
//! The host sends these bytes. A decoder that skips what it does not know lets the host add meaning that the
//! policy never sees; so the bytes are walked against the definition first and parsed only when all of them fit.

use protobuf::Message;

/// Largest message: the ttrpc limit on a frame's data (4 MiB).
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Why bytes are not a message of the agent API. The peer is to blame for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("{message} is too large: found {found} bytes, expected at most {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// The message.
        message: &'static str,
        /// Its length, bytes.
        found: usize,
    },
    /// The bytes end inside a field.
    #[error("{message} is truncated")]
    Truncated {
        /// The message or the part of it that ends early.
        message: &'static str,
    },
    /// A field number that the definition does not have.
    #[error("{message} has unknown field number {number}")]
    UnknownField {
        /// The message or the part of it that holds the field.
        message: &'static str,
        /// The number found.
        number: u32,
    },
    /// A field in another wire form than the definition's.
    #[error("{message} field {number} has wire type {found}")]
    WireType {
        /// The message or the part of it that holds the field.
        message: &'static str,
        /// The field.
        number: u32,
        /// The wire type found.
        found: u8,
    },
    /// A singular field that occurs twice.
    #[error("{message} field {number} occurs twice, expected once")]
    Duplicate {
        /// The message or the part of it that holds the field.
        message: &'static str,
        /// The field.
        number: u32,
    },
    /// The fields fit but a value does not (text that is not UTF-8, a number out of range).
    #[error("{message} is malformed: {detail}")]
    Malformed {
        /// The message.
        message: &'static str,
        /// What the protobuf parser says.
        detail: String,
    },
    /// A method that the agent API does not have.
    #[error("unknown method {method:?}")]
    UnknownMethod {
        /// The name found, at most 80 characters of it.
        method: String,
    },
}

/// A message of the agent API, with the definition that its bytes are checked against.
pub trait Wire: Message + Default {
    /// The definition.
    #[doc(hidden)]
    const SCHEMA: &'static MessageSchema;
}

#[doc(hidden)]
#[derive(Debug)]
pub struct MessageSchema {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [FieldSchema],
}

#[derive(Debug)]
pub(crate) struct FieldSchema {
    number: u32,
    kind: Kind,
    repeated: bool,
}

/// What a field's bytes are. The definition has no floats and no fixed-width integers.
#[derive(Debug)]
enum Kind {
    Varint,
    Bytes,
    Message(&'static MessageSchema),
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

static EMPTY: MessageSchema = MessageSchema { name: "Empty", fields: &[] };

impl Wire for crate::Empty {
    const SCHEMA: &'static MessageSchema = &EMPTY;
}

/// Decodes exactly `bytes`.
///
/// # Errors
/// [`DecodeError`] for anything that an encoder of the same definition would not have written.
pub fn decode<M: Wire>(bytes: &[u8]) -> Result<M, DecodeError> {
    let message = M::SCHEMA.name;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError::TooLarge { message, found: bytes.len() });
    }
    walk(M::SCHEMA, bytes)?;
    M::parse_from_bytes(bytes)
        .map_err(|err| DecodeError::Malformed { message, detail: err.to_string() })
}

/// Encodes a message.
///
/// # Errors
/// [`DecodeError::TooLarge`] when the other side would refuse it, [`DecodeError::Malformed`] when it cannot be encoded.
pub fn encode<M: Wire>(value: &M) -> Result<Vec<u8>, DecodeError> {
    let message = M::SCHEMA.name;
    let bytes = value
        .write_to_bytes()
        .map_err(|err| DecodeError::Malformed { message, detail: err.to_string() })?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(DecodeError::TooLarge { message, found: bytes.len() });
    }
    Ok(bytes)
}

/// Wire types of the protobuf encoding.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// The definition is not recursive, so the depth of the walk is the definition's (at most 8 levels).
fn walk(schema: &'static MessageSchema, bytes: &[u8]) -> Result<(), DecodeError> {
    let message = schema.name;
    let mut rest = bytes;
    let mut seen: u64 = 0;
    while !rest.is_empty() {
        let tag = varint(message, &mut rest)?;
        let number = u32::try_from(tag >> 3).unwrap_or(u32::MAX);
        let found = (tag & 7) as u8;
        let (index, field) = schema
            .fields
            .iter()
            .enumerate()
            .find(|(_, field)| field.number == number)
            .ok_or(DecodeError::UnknownField { message, number })?;
        let bit = u32::try_from(index).ok().and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0);
        if !field.repeated && seen & bit != 0 {
            return Err(DecodeError::Duplicate { message, number });
        }
        seen |= bit;
        walk_field(message, field, found, &mut rest)?;
    }
    Ok(())
}

fn walk_field(
    message: &'static str,
    field: &FieldSchema,
    found: u8,
    rest: &mut &[u8],
) -> Result<(), DecodeError> {
    match (&field.kind, found) {
        (Kind::Varint, VARINT) => varint(message, rest).map(drop),
        (Kind::Varint, LENGTH_DELIMITED) if field.repeated => {
            let mut packed = delimited(message, rest)?;
            while !packed.is_empty() {
                varint(message, &mut packed)?;
            }
            Ok(())
        }
        (Kind::Bytes, LENGTH_DELIMITED) => delimited(message, rest).map(drop),
        (Kind::Message(inner), LENGTH_DELIMITED) => walk(inner, delimited(message, rest)?),
        _ => Err(DecodeError::WireType { message, number: field.number, found }),
    }
}

fn delimited<'a>(message: &'static str, rest: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let truncated = DecodeError::Truncated { message };
    let Ok(length) = usize::try_from(varint(message, rest)?) else { return Err(truncated) };
    let (value, after) = rest.split_at_checked(length).ok_or(truncated)?;
    *rest = after;
    Ok(value)
}

/// At most ten bytes, the tenth at most 1 (64 bits).
fn varint(message: &'static str, rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(DecodeError::Truncated { message })?;
        *rest = after;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Malformed { message, detail: "number longer than 64 bits".to_owned() })
}
