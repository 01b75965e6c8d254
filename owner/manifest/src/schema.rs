//! Which fields a k8s-openapi type has, found by letting its own `Deserialize` ask for them.
//!
//! The generated code names each struct and its fields when it deserialises, so a field that a new
//! version of k8s-openapi brings is seen here, and the table of fields has to say something about it.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

/// Struct name to field name to the struct that the field holds, through lists and maps.
pub(crate) type Schema = BTreeMap<&'static str, BTreeMap<&'static str, Option<&'static str>>>;

/// The structs reachable from `T`, and the name of `T` itself.
pub(crate) fn of<T: DeserializeOwned>() -> Schema {
    let mut probe = Probe::default();
    // the value is of no interest; a type that does not accept the made-up values is seen as far as it got
    let _ = T::deserialize(&mut probe);
    probe.schema
}

#[derive(Default)]
struct Probe {
    schema: Schema,
    /// Structs being read, so that a type that holds itself ends.
    open: BTreeSet<&'static str>,
    /// The last struct that was read: what the field just read holds.
    last: Option<&'static str>,
}

#[derive(Debug)]
struct ProbeError;

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("type does not accept the value made up for it")
    }
}

impl std::error::Error for ProbeError {}

impl serde::de::Error for ProbeError {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for &mut Probe {
    type Error = ProbeError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        let known = self.schema.contains_key(name) || !self.open.insert(name);
        let fields = if known { &[][..] } else { fields };
        let value = visitor.visit_map(Fields { probe: self, owner: name, fields })?;
        self.schema.entry(name).or_default();
        self.last = Some(name);
        Ok(value)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_seq(Once { probe: self, done: false })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_map(Once { probe: self, done: false })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeError> {
        match name {
            "Quantity" => visitor.visit_str("1"),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_bool(false)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        visitor.visit_i64(0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        // every text, and every time
        visitor.visit_str("1970-01-01T00:00:00Z")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeError> {
        self.deserialize_str(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

struct Fields<'a> {
    probe: &'a mut Probe,
    owner: &'static str,
    fields: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ProbeError> {
        let Some(field) = self.fields.first() else { return Ok(None) };
        seed.deserialize((*field).into_deserializer()).map(Some)
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ProbeError> {
        let Some((field, rest)) = self.fields.split_first() else { return Err(ProbeError) };
        self.fields = rest;
        self.probe.last = None;
        let value = seed.deserialize(&mut *self.probe)?;
        let held = self.probe.last.take();
        self.probe.schema.entry(self.owner).or_default().insert(field, held);
        Ok(value)
    }
}

struct Once<'a> {
    probe: &'a mut Probe,
    done: bool,
}

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_element_seed<S: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, ProbeError> {
        match std::mem::replace(&mut self.done, true) {
            true => Ok(None),
            false => seed.deserialize(&mut *self.probe).map(Some),
        }
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = ProbeError;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ProbeError> {
        match std::mem::replace(&mut self.done, true) {
            true => Ok(None),
            false => seed.deserialize("key".into_deserializer()).map(Some),
        }
    }

    fn next_value_seed<V: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ProbeError> {
        seed.deserialize(&mut *self.probe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    #[test]
    fn the_types_of_a_pod_are_found() {
        let schema = of::<PodSpec>();
        assert_eq!(schema["PodSpec"]["containers"], Some("Container"));
        assert_eq!(schema["PodSpec"]["hostPID"], None);
        assert_eq!(schema["PodSpec"]["initContainers"], Some("Container"));
        assert_eq!(schema["Container"]["securityContext"], Some("SecurityContext"));
        assert_eq!(schema["Container"]["livenessProbe"], Some("Probe"));
        assert_eq!(schema["Container"]["startupProbe"], Some("Probe"));
        assert_eq!(schema["HTTPGetAction"]["port"], None);
        assert_eq!(schema["EmptyDirVolumeSource"]["sizeLimit"], None);
        assert_eq!(schema["PodSpec"].len(), 40);
        assert!(schema["Volume"].len() > 28);
    }
}
