//! Go's gob encoding (<https://pkg.go.dev/encoding/gob>), as far as records of snet-daemon need it: one value, read by the type definitions that
//! stand before it in the same stream. Numbers of types differ from stream to stream, so nothing is assumed of them.

use std::collections::HashMap;

/// Why bytes are no gob stream that can be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GobError {
    /// It ends too early.
    #[error("the stream is truncated")]
    Truncated,
    /// Something follows the value.
    #[error("{bytes} bytes follow the value")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// It says what no encoder says.
    #[error("{0}")]
    Malformed(&'static str),
    /// It has a type that no record of the daemon has.
    #[error("the stream has {0}, which no record of the daemon has")]
    Unsupported(&'static str),
    /// It is of another type, or a field is.
    #[error("{field} is not there as the daemon writes it")]
    Field {
        /// Which field, or the whole.
        field: &'static str,
    },
}

type Result<T, E = GobError> = std::result::Result<T, E>;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// A string, a slice or array of bytes, and what a type encodes by itself: it tells by its own means what it is.
    Bytes(Vec<u8>),
    /// The fields that are not zero, by their names.
    Struct(String, HashMap<String, Value>),
}

/// A type, as a definition in the stream tells.
#[derive(Clone, Debug)]
enum Type {
    /// An array or slice of this type.
    List(i64),
    Struct(String, Vec<(String, i64)>),
    /// It encodes itself to bytes.
    Opaque,
}

/// The types that every stream knows.
mod builtin {
    pub(super) const BOOL: i64 = 1;
    pub(super) const INT: i64 = 2;
    pub(super) const UINT: i64 = 3;
    pub(super) const BYTES: i64 = 5;
    pub(super) const STRING: i64 = 6;
}

/// The most type definitions of a stream, the most fields of a type, and how deep types go: several times what the daemon has. A damaged
/// stream is not to take the memory or the stack of who reads it.
const MAX_TYPES: usize = 64;
const MAX_FIELDS: u64 = 256;
const MAX_DEPTH: usize = 16;

/// Reads a stream of one value.
pub(crate) fn decode(stream: &[u8]) -> Result<Value> {
    let mut input = Input { rest: stream };
    let mut types: HashMap<i64, Type> = HashMap::new();
    loop {
        let length = input.length()?;
        let mut message = Input { rest: input.take(length)? };
        let id = message.int()?;
        if id < 0 {
            let id = id.checked_neg().ok_or(GobError::Malformed("a type has no such number"))?;
            if types.len() >= MAX_TYPES || types.insert(id, message.definition()?).is_some() {
                return Err(GobError::Malformed("a type is defined twice, or there are too many"));
            }
            message.finish()?;
            continue;
        }
        let value = if matches!(types.get(&id), Some(Type::Struct(..))) {
            message.value(id, &types, 0)?
        } else {
            // What is no structure has a zero before it.
            if message.uint()? != 0 {
                return Err(GobError::Malformed("a value does not begin as one"));
            }
            message.value(id, &types, 0)?
        };
        message.finish()?;
        input.finish()?;
        return Ok(value);
    }
}

impl Value {
    /// A field of a structure; `None`: it is zero or nil, which are not sent.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(_, fields) => fields.get(name),
            _ => None,
        }
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(GobError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn finish(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(GobError::TrailingBytes { bytes: self.rest.len() }) }
    }

    /// A number below 128 is one byte; others have the negated count of their bytes before them.
    fn uint(&mut self) -> Result<u64> {
        let [first] = self.take(1)? else { return Err(GobError::Truncated) };
        if *first < 128 {
            return Ok(u64::from(*first));
        }
        let count = usize::from(first.wrapping_neg());
        if count > 8 {
            return Err(GobError::Malformed("a number has more than eight bytes"));
        }
        Ok(self.take(count)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The sign is the lowest bit; of a negative number the others are inverted.
    fn int(&mut self) -> Result<i64> {
        let number = self.uint()?;
        let half = (number >> 1).cast_signed();
        Ok(if number & 1 == 1 { !half } else { half })
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.uint()?).map_err(|_| GobError::Truncated)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| GobError::Malformed("a name is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// The fields of a structure that are there, each with the distance from the one before: `read` takes the one of this number.
    fn fields(&mut self, mut read: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        let mut number = 0u64;
        loop {
            match self.uint()? {
                0 => return Ok(()),
                distance => {
                    number = number.checked_add(distance).ok_or(GobError::Malformed("a field is out of range"))?
                }
            }
            // Counted from one here, since a first distance of one is the first field.
            read(self, number)?;
        }
    }

    /// The definition of a type: Go's wireType, a structure of which one field is there.
    fn definition(&mut self) -> Result<Type> {
        let mut found = None;
        self.fields(|input, kind| {
            found = Some(match kind {
                // ArrayT and SliceT: the common part, the element, and for an array its length.
                1 | 2 => {
                    let mut element = 0;
                    input.fields(|input, field| match field {
                        1 => input.common().map(drop),
                        2 => input.int().map(|id| element = id),
                        3 => input.int().map(drop),
                        _ => Err(GobError::Malformed("a list has an unknown property")),
                    })?;
                    Type::List(element)
                }
                3 => input.structure()?,
                4 => return Err(GobError::Unsupported("a map")),
                // GobEncoderT, BinaryMarshalerT, TextMarshalerT.
                5..=7 => {
                    input.fields(|input, field| match field {
                        1 => input.common().map(drop),
                        _ => Err(GobError::Malformed("a type has an unknown property")),
                    })?;
                    Type::Opaque
                }
                _ => return Err(GobError::Malformed("a type of an unknown kind")),
            });
            Ok(())
        })?;
        found.ok_or(GobError::Malformed("a type of no kind"))
    }

    fn structure(&mut self) -> Result<Type> {
        let (mut name, mut members) = (String::new(), Vec::new());
        self.fields(|input, field| match field {
            1 => input.common().map(|common| name = common),
            2 => {
                let count = input.uint()?;
                if count > MAX_FIELDS {
                    return Err(GobError::Malformed("a structure has too many fields"));
                }
                for _ in 0..count {
                    let (mut member, mut id) = (String::new(), 0);
                    input.fields(|input, property| match property {
                        1 => input.text().map(|text| member = text),
                        2 => input.int().map(|number| id = number),
                        _ => Err(GobError::Malformed("a field has an unknown property")),
                    })?;
                    members.push((member, id));
                }
                Ok(())
            }
            _ => Err(GobError::Malformed("a structure has an unknown property")),
        })?;
        Ok(Type::Struct(name, members))
    }

    /// What every definition begins with: name and number. The name.
    fn common(&mut self) -> Result<String> {
        let mut name = String::new();
        self.fields(|input, field| match field {
            1 => input.text().map(|text| name = text),
            2 => input.int().map(drop),
            _ => Err(GobError::Malformed("a type has an unknown property")),
        })?;
        Ok(name)
    }

    fn value(&mut self, id: i64, types: &HashMap<i64, Type>, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(GobError::Malformed("types go too deep"));
        }
        match id {
            builtin::BOOL => return Ok(Value::Bool(self.uint()? != 0)),
            builtin::INT => return self.int().map(Value::Int),
            builtin::UINT => return self.uint().map(Value::Uint),
            builtin::BYTES | builtin::STRING => return Ok(Value::Bytes(self.bytes()?.to_vec())),
            _ => {}
        }
        match types.get(&id).ok_or(GobError::Malformed("a type is not defined"))? {
            Type::Opaque => Ok(Value::Bytes(self.bytes()?.to_vec())),
            Type::List(builtin::UINT) => {
                // Arrays of bytes are sent as numbers, each in its own encoding.
                let count = self.length()?;
                let mut bytes = Vec::new();
                for _ in 0..count {
                    let byte = u8::try_from(self.uint()?);
                    bytes.push(byte.map_err(|_| GobError::Unsupported("a list of numbers over 255"))?);
                }
                Ok(Value::Bytes(bytes))
            }
            Type::List(_) => Err(GobError::Unsupported("a list of something else than bytes")),
            Type::Struct(name, members) => {
                let mut fields = HashMap::new();
                self.fields(|input, number| {
                    let place = usize::try_from(number - 1).ok();
                    let (member, id) = place
                        .and_then(|place| members.get(place))
                        .ok_or(GobError::Malformed("a field that the type does not have"))?;
                    fields.insert(member.clone(), input.value(*id, types, depth + 1)?);
                    Ok(())
                })?;
                Ok(Value::Struct(name.clone(), fields))
            }
        }
    }
}
