//! From JSON to typed values and back, with QEMU's wording of what is wrong.

use serde_json::{Map, Value};

use crate::error::QmpError;
use crate::schema::Schema;

/// A type of the protocol.
pub trait Qapi: Sized {
    /// Whether a member of this type may be left out.
    const OPTIONAL: bool = false;

    /// Adds the type, and those it is made of, to the schema, and returns its name there.
    fn describe(schema: &mut Schema) -> String;

    /// The value as it is sent.
    fn to_json(&self) -> Value;

    /// Reads a value; `at` names it in errors.
    ///
    /// # Errors
    /// When it is of another type, or a member is missing, unknown or wrong.
    fn from_json(at: &str, value: Value) -> Result<Self, QmpError>;

    /// Adds the value to an object under `name`.
    fn put(&self, members: &mut Map<String, Value>, name: &str) {
        members.insert(name.to_owned(), self.to_json());
    }

    /// Takes the value `name` out of an object that is itself called `at`.
    ///
    /// # Errors
    /// As [`Qapi::from_json`], and when it is missing.
    fn take(members: &mut Map<String, Value>, at: &str, name: &str) -> Result<Self, QmpError> {
        let path = join(at, name);
        match members.remove(name) {
            Some(value) => Self::from_json(&path, value),
            None => Err(QmpError::generic(format!("Parameter '{path}' is missing"))),
        }
    }
}

/// The name of member `name` of what is called `at`.
pub fn join(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

/// The members of an object.
///
/// # Errors
/// When the value is something else.
pub fn object_members(at: &str, value: Value) -> Result<Map<String, Value>, QmpError> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(QmpError::wrong_type(at, "object")),
    }
}

/// Refuses what no member has taken.
///
/// # Errors
/// When something is left.
pub fn no_more_members(at: &str, members: &Map<String, Value>) -> Result<(), QmpError> {
    match members.keys().next() {
        Some(name) => Err(QmpError::generic(format!(
            "Parameter '{}' is unexpected",
            join(at, name)
        ))),
        None => Ok(()),
    }
}

impl Qapi for bool {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("bool", "boolean")
    }

    fn to_json(&self) -> Value {
        Value::Bool(*self)
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        value
            .as_bool()
            .ok_or_else(|| QmpError::wrong_type(at, "boolean"))
    }
}

impl Qapi for String {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("str", "string")
    }

    fn to_json(&self) -> Value {
        Value::String(self.clone())
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(QmpError::wrong_type(at, "string")),
        }
    }
}

impl Qapi for Value {
    fn describe(schema: &mut Schema) -> String {
        schema.builtin("any", "value")
    }

    fn to_json(&self) -> Value {
        self.clone()
    }

    fn from_json(_: &str, value: Value) -> Result<Self, QmpError> {
        Ok(value)
    }
}

/// Integers: one JSON type, each with its own range.
macro_rules! integers {
    ($($ty:ty = $c_name:literal),*) => { $(
        impl Qapi for $ty {
            fn describe(schema: &mut Schema) -> String {
                schema.builtin("int", "int")
            }

            fn to_json(&self) -> Value {
                Value::from(*self)
            }

            fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
                let wide = match (value.as_i64(), value.as_u64()) {
                    (Some(n), _) => i128::from(n),
                    (None, Some(n)) => i128::from(n),
                    (None, None) => return Err(QmpError::wrong_type(at, "integer")),
                };
                <$ty>::try_from(wide).map_err(|_| {
                    QmpError::generic(format!("Parameter '{at}' expects {}", $c_name))
                })
            }
        }
    )* };
}

integers!(
    u8 = "uint8_t",
    u16 = "uint16_t",
    u32 = "uint32_t",
    u64 = "uint64_t",
    i32 = "int32_t",
    i64 = "int64_t"
);

impl<T: Qapi> Qapi for Vec<T> {
    fn describe(schema: &mut Schema) -> String {
        let element = T::describe(schema);
        schema.array(&element)
    }

    fn to_json(&self) -> Value {
        Value::Array(self.iter().map(Qapi::to_json).collect())
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        let Value::Array(elements) = value else {
            return Err(QmpError::wrong_type(at, "array"));
        };
        let indexed = elements.into_iter().enumerate();
        indexed
            .map(|(index, value)| T::from_json(&format!("{at}[{index}]"), value))
            .collect()
    }
}

impl<T: Qapi> Qapi for Box<T> {
    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }

    fn to_json(&self) -> Value {
        T::to_json(self)
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        T::from_json(at, value).map(Box::new)
    }
}

impl<T: Qapi> Qapi for Option<T> {
    const OPTIONAL: bool = true;

    fn describe(schema: &mut Schema) -> String {
        T::describe(schema)
    }

    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, Qapi::to_json)
    }

    fn from_json(at: &str, value: Value) -> Result<Self, QmpError> {
        T::from_json(at, value).map(Some)
    }

    fn put(&self, members: &mut Map<String, Value>, name: &str) {
        if let Some(value) = self {
            value.put(members, name);
        }
    }

    fn take(members: &mut Map<String, Value>, at: &str, name: &str) -> Result<Self, QmpError> {
        match members.remove(name) {
            Some(value) => T::from_json(&join(at, name), value).map(Some),
            None => Ok(None),
        }
    }
}

/// Defines a struct of the protocol: `field: Type = "json-name"`. An `Option` may be left out.
#[macro_export]
macro_rules! qapi_struct {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty = $json:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl $crate::Qapi for $name {
            fn describe(schema: &mut $crate::Schema) -> String {
                schema.object(stringify!($name), |schema| {
                    let _ = &schema;
                    vec![$($crate::Member::of::<$ty>(schema, $json)),*]
                })
            }

            fn to_json(&self) -> $crate::Value {
                #[allow(unused_mut)]
                let mut members = $crate::Map::new();
                $($crate::Qapi::put(&self.$field, &mut members, $json);)*
                $crate::Value::Object(members)
            }

            fn from_json(at: &str, value: $crate::Value) -> Result<Self, $crate::QmpError> {
                #[allow(unused_mut)]
                let mut members = $crate::object_members(at, value)?;
                let this = Self {
                    $($field: <$ty as $crate::Qapi>::take(&mut members, at, $json)?,)*
                };
                $crate::no_more_members(at, &members)?;
                Ok(this)
            }
        }
    };
}

/// Defines an enumeration of the protocol: `Variant = "json-name"`.
#[macro_export]
macro_rules! qapi_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $json:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// All of them, in the order of the definition.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it is sent.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $json,)*
                }
            }

            /// The one of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == name)
            }
        }

        impl $crate::Qapi for $name {
            fn describe(schema: &mut $crate::Schema) -> String {
                schema.enumeration(stringify!($name), &[$($json),*])
            }

            fn to_json(&self) -> $crate::Value {
                $crate::Value::from(self.name())
            }

            fn from_json(at: &str, value: $crate::Value) -> Result<Self, $crate::QmpError> {
                let text = String::from_json(at, value)?;
                Self::named(&text).ok_or_else(|| {
                    $crate::QmpError::generic(format!("Parameter '{at}' does not accept value '{text}'"))
                })
            }
        }
    };
}

/// Defines a union of the protocol: `Variant(Type) = "json-name"`, of which `type` gives the name and `data` the rest.
#[macro_export]
macro_rules! qapi_union {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($ty:ty) = $json:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        pub enum $name {
            $($(#[$variant_meta])* $variant($ty),)*
        }

        impl $crate::Qapi for $name {
            fn describe(schema: &mut $crate::Schema) -> String {
                schema.union(stringify!($name), "type", |schema| {
                    let tag = schema.enumeration(concat!(stringify!($name), ".type"), &[$($json),*]);
                    let variants = vec![$(($json, schema.object(
                        concat!(stringify!($name), ".", $json),
                        |schema| vec![$crate::Member::of::<$ty>(schema, "data")],
                    ))),*];
                    (vec![$crate::Member::tag("type", tag)], variants)
                })
            }

            fn to_json(&self) -> $crate::Value {
                let mut members = $crate::Map::new();
                match self {
                    $(Self::$variant(data) => {
                        $crate::Qapi::put(&$json.to_owned(), &mut members, "type");
                        $crate::Qapi::put(data, &mut members, "data");
                    })*
                }
                $crate::Value::Object(members)
            }

            fn from_json(at: &str, value: $crate::Value) -> Result<Self, $crate::QmpError> {
                let mut members = $crate::object_members(at, value)?;
                let kind = <String as $crate::Qapi>::take(&mut members, at, "type")?;
                let this = match kind.as_str() {
                    $($json => Self::$variant(<$ty as $crate::Qapi>::take(&mut members, at, "data")?),)*
                    _ => return Err($crate::QmpError::generic(format!(
                        "Parameter '{}' does not accept value '{kind}'", $crate::join(at, "type")
                    ))),
                };
                $crate::no_more_members(at, &members)?;
                Ok(this)
            }
        }
    };
}
