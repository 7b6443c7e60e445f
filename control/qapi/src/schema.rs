//! What `query-qmp-schema` answers, gathered from the types.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::drivers::BlockDrivers;
use crate::value::Qapi;

/// A member of an object type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    name: String,
    type_name: String,
    is_optional: bool,
}

impl Member {
    /// A member of type `T`.
    pub fn of<T: Qapi>(schema: &mut Schema, name: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            type_name: T::describe(schema),
            is_optional: T::OPTIONAL,
        }
    }

    /// A member of a type that is described already.
    pub(crate) fn new(name: String, type_name: String, is_optional: bool) -> Self {
        Self {
            name,
            type_name,
            is_optional,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The member that says which variant of a union it is.
    pub fn tag(name: &'static str, type_name: String) -> Self {
        Self {
            name: name.to_owned(),
            type_name,
            is_optional: false,
        }
    }

    fn to_json(&self) -> Value {
        let mut member = json!({ "name": self.name, "type": self.type_name });
        if let (true, Value::Object(members)) = (self.is_optional, &mut member) {
            // The default is not told: null stands for "there is one".
            members.insert("default".to_owned(), Value::Null);
        }
        member
    }
}

/// The types, commands and events met so far. Types other than the built-in ones have numbers for names, as QEMU hides
/// its own names too: they are no interface.
#[derive(Default, Debug)]
pub struct Schema {
    entries: Vec<Value>,
    names: BTreeMap<String, String>,
    drivers: Arc<BlockDrivers>,
}

impl Schema {
    /// Empty, of a machine with these drivers for disks.
    pub fn of(drivers: BlockDrivers) -> Self {
        Self {
            drivers: Arc::new(drivers),
            ..Self::default()
        }
    }

    pub(crate) fn drivers(&self) -> Arc<BlockDrivers> {
        self.drivers.clone()
    }

    /// A built-in type.
    pub fn builtin(&mut self, name: &str, json_type: &str) -> String {
        self.define(
            name,
            name.to_owned(),
            |_| json!({ "name": name, "json-type": json_type, "meta-type": "builtin" }),
        )
    }

    /// An array.
    pub fn array(&mut self, element: &str) -> String {
        let name = format!("[{element}]");
        self.define(
            &name,
            name.clone(),
            |_| json!({ "name": name, "element-type": element, "meta-type": "array" }),
        )
    }

    /// An enumeration.
    pub fn enumeration(&mut self, rust_name: &str, values: &[&str]) -> String {
        let number = self.number();
        self.define(rust_name, number.clone(), |_| {
            let members: Vec<_> = values.iter().map(|v| json!({ "name": v })).collect();
            json!({ "name": number, "members": members, "values": values, "meta-type": "enum" })
        })
    }

    /// An object.
    pub fn object(
        &mut self,
        rust_name: &str,
        members: impl FnOnce(&mut Self) -> Vec<Member>,
    ) -> String {
        let number = self.number();
        self.define(rust_name, number.clone(), |schema| {
            let members: Vec<_> = members(schema).iter().map(Member::to_json).collect();
            json!({ "name": number, "members": members, "meta-type": "object" })
        })
    }

    /// An object whose further members depend on the value of its member `tag`.
    pub fn union(
        &mut self,
        rust_name: &str,
        tag: &'static str,
        members: impl FnOnce(&mut Self) -> (Vec<Member>, Vec<(&'static str, String)>),
    ) -> String {
        let number = self.number();
        self.define(rust_name, number.clone(), |schema| {
            let (members, variants) = members(schema);
            let members: Vec<_> = members.iter().map(Member::to_json).collect();
            let variants: Vec<_> =
                variants.iter().map(|(case, of)| json!({ "case": case, "type": of })).collect();
            json!({ "name": number, "tag": tag, "members": members, "variants": variants, "meta-type": "object" })
        })
    }

    /// A value of one of several types, told by its JSON type.
    pub(crate) fn alternate(
        &mut self,
        rust_name: &str,
        types: impl FnOnce(&mut Self) -> Vec<String>,
    ) -> String {
        let number = self.number();
        self.define(rust_name, number.clone(), |schema| {
            let types = types(schema);
            let members: Vec<_> = types.iter().map(|of| json!({ "type": of })).collect();
            json!({ "name": number, "members": members, "meta-type": "alternate" })
        })
    }

    /// A command.
    pub fn command(&mut self, name: &str, arguments: &str, answer: &str) {
        self.entries.push(json!({
            "name": name, "arg-type": arguments, "ret-type": answer, "allow-oob": false, "meta-type": "command",
        }));
    }

    /// An event.
    pub fn event(&mut self, name: &str, data: &str) {
        self.entries
            .push(json!({ "name": name, "arg-type": data, "meta-type": "event" }));
    }

    /// All entries.
    pub fn into_entries(self) -> Vec<Value> {
        self.entries
    }

    fn number(&self) -> String {
        self.names.len().to_string()
    }

    fn define(
        &mut self,
        key: &str,
        name: String,
        entry: impl FnOnce(&mut Self) -> Value,
    ) -> String {
        if let Some(known) = self.names.get(key) {
            return known.clone();
        }
        // Before its members, so that a type may contain itself.
        self.names.insert(key.to_owned(), name.clone());
        let entry = entry(self);
        self.entries.push(entry);
        name
    }
}
