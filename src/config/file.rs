//! Reading and writing configuration files through serde.
//!
//! Derived code would say what is wrong with a value but not, in JSON, with which field, and never what the field
//! allows. So values are visited by hand: the field's own words are what serde's errors "expect". The errors arise
//! inside the value's deserializer, which makes TOML and JSON add the place in the file.

use std::fmt;
use std::time::Duration;

use humantime_serde::Serde;
use humantime_serde::re::humantime::parse_duration;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Unexpected, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::fields::{FIELDS, Field, Kind};
use super::{Balance, PoolConfig};

impl Serialize for PoolConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut copy = self.clone();
        let mut map = serializer.serialize_map(Some(FIELDS.len()))?;
        for Field { name, kind, .. } in FIELDS {
            match kind {
                Kind::Count(place) => map.serialize_entry(name, place.get(&mut copy))?,
                Kind::Wire(place) => map.serialize_entry(name, place.get(&mut copy))?,
                Kind::Time(place) => map.serialize_entry(name, &Serde::from(*place.get(&mut copy)))?,
                Kind::Flag(at) => map.serialize_entry(name, at(&mut copy))?,
                Kind::Balance(at) => map.serialize_entry(name, at(&mut copy))?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PoolConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = PoolConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of an h2pool configuration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PoolConfig, A::Error> {
        let mut config = PoolConfig::default();
        let mut seen = Vec::with_capacity(FIELDS.len());
        while let Some(field) = map.next_key_seed(NameSeed { seen: &seen })? {
            seen.push(field.name);
            map.next_value_seed(ValueSeed {
                field,
                config: &mut config,
            })?;
        }
        config.validate().map_err(A::Error::custom)?;
        Ok(config)
    }
}

/// Reads the name of a field that was not seen before.
struct NameSeed<'a> {
    seen: &'a [&'static str],
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = &'static Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = &'static Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            let names: Vec<_> = FIELDS.iter().map(|field| format!("`{}`", field.name)).collect();
            return Err(E::custom(format_args!(
                "unknown field `{name}`, expected one of {}",
                names.join(", ")
            )));
        };
        if self.seen.contains(&field.name) {
            return Err(E::duplicate_field(field.name));
        }
        Ok(field)
    }
}

/// Reads the value of `field` into `config`.
struct ValueSeed<'a> {
    field: &'static Field,
    config: &'a mut PoolConfig,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for `{}`", self.field.allowed(), self.field.name)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match &self.field.kind {
            Kind::Flag(at) => *at(self.config) = value,
            _ => return Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) if self.takes_integers() => Err(E::invalid_value(Unexpected::Signed(value), &self)),
            Err(_) => Err(E::invalid_type(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let set = match &self.field.kind {
            Kind::Count(place) => usize::try_from(value)
                .ok()
                .and_then(|n| place.set(self.config, n)),
            Kind::Wire(place) => u32::try_from(value).ok().and_then(|n| place.set(self.config, n)),
            // Zero needs no unit.
            Kind::Time(place) if value == 0 => place.set(self.config, Duration::ZERO),
            _ => return Err(E::invalid_type(Unexpected::Unsigned(value), &self)),
        };
        set.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let set = match &self.field.kind {
            Kind::Time(place) => {
                let time = parse_duration(value).map_err(|cause| {
                    let allowed = self.field.allowed();
                    E::custom(format_args!(
                        "invalid value: string {value:?} ({cause}), expected {allowed} for `{}`",
                        self.field.name
                    ))
                })?;
                place.set(self.config, time)
            }
            Kind::Balance(at) => {
                let named = Balance::deserialize(StrDeserializer::<E>::new(value)).ok();
                named.map(|balance| *at(self.config) = balance)
            }
            _ => return Err(E::invalid_type(Unexpected::Str(value), &self)),
        };
        set.ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
    }
}

impl ValueSeed<'_> {
    fn takes_integers(&self) -> bool {
        matches!(self.field.kind, Kind::Count(_) | Kind::Wire(_))
    }
}
