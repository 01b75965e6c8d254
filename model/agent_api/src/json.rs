//! serde forms of the protobuf wrappers: a message field is `null` or an object, an enum is its number.

/// `MessageField<T>`: `null` when unset.
pub(crate) mod message {
    use protobuf::MessageField;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        field: &MessageField<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        field.as_ref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<MessageField<T>, D::Error> {
        Option::<T>::deserialize(deserializer).map(MessageField::from_option)
    }
}

/// `EnumOrUnknown<E>`: the number on the wire, known or not.
pub(crate) mod number {
    use protobuf::{Enum, EnumOrUnknown};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<E: Enum, S: Serializer>(
        field: &EnumOrUnknown<E>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(field.value())
    }

    pub(crate) fn deserialize<'de, E: Enum, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<EnumOrUnknown<E>, D::Error> {
        i32::deserialize(deserializer).map(EnumOrUnknown::from_i32)
    }
}
