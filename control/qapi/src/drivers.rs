//! The drivers of the block graph, as `blockdev-add` and `blockdev-create` take them: what there are, the
//! machine says; the schema has a variant for each.

use crate::schema::{Member, Schema};
use crate::value::Qapi;

/// What a setting of a driver takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// A switch.
    Bool,
    /// A number.
    Int,
    /// Text.
    Str,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A node: its name, or what it is made of.
    Node,
    /// The same, or null for none.
    NodeOrNone,
}

/// A setting of a driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name, with dots where it is a member of a member; a number is a place in a list.
    pub name: String,
    /// What it takes.
    pub takes: Takes,
    /// Whether it may be left out.
    pub is_optional: bool,
}

/// A driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockDriver {
    /// Its name.
    pub name: &'static str,
    /// Settings of a node, beside those that all have.
    pub open: Vec<Setting>,
    /// Settings of an image that is to be made, if it makes any.
    pub create: Option<Vec<Setting>>,
}

/// All drivers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockDrivers {
    /// Settings of all nodes.
    pub common: Vec<Setting>,
    /// The drivers.
    pub drivers: Vec<BlockDriver>,
}

/// Name of the member that says which driver it is.
const TAG: &str = "driver";

/// The type of a node that is opened.
pub(crate) fn describe_open(schema: &mut Schema) -> String {
    let drivers = schema.drivers();
    let variants = drivers.drivers.iter().map(|d| (d.name, d.open.as_slice()));
    let variants: Vec<_> = variants.collect();
    union(schema, "BlockdevOptions", &drivers.common, &variants)
}

/// The type of an image that is made.
pub(crate) fn describe_create(schema: &mut Schema) -> String {
    let drivers = schema.drivers();
    let makes = |d: &'_ BlockDriver| Some((d.name, d.create.clone()?));
    let variants: Vec<_> = drivers.drivers.iter().filter_map(makes).collect();
    let variants: Vec<_> = variants
        .iter()
        .map(|(name, of)| (*name, of.as_slice()))
        .collect();
    union(schema, "BlockdevCreateOptions", &[], &variants)
}

fn union(
    schema: &mut Schema,
    name: &str,
    common: &[Setting],
    variants: &[(&'static str, &[Setting])],
) -> String {
    schema.union(name, TAG, |schema| {
        let names: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
        let tag = schema.enumeration(&format!("{name}.{TAG}"), &names);
        let mut all = vec![Member::tag(TAG, tag)];
        all.extend(members(schema, name, common));
        let variants = variants.iter().map(|(driver, settings)| {
            let path = format!("{name}.{driver}");
            let of = schema.object(&path, |schema| members(schema, &path, settings));
            (*driver, of)
        });
        (all, variants.collect())
    })
}

/// Settings as members of one object called `path`; those with dots in objects of their own.
fn members(schema: &mut Schema, path: &str, settings: &[Setting]) -> Vec<Member> {
    let mut all: Vec<Member> = Vec::new();
    for setting in settings {
        let (first, rest) = match setting.name.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (setting.name.as_str(), None),
        };
        if all.iter().any(|member| member.name() == first) {
            continue;
        }
        let of = match rest {
            None => takes(schema, &format!("{path}.{first}"), setting.takes),
            Some(rest) => {
                let is_list = rest.starts_with("0.");
                let inner = |setting: &Setting| {
                    let rest = setting.name.strip_prefix(first)?.strip_prefix('.')?;
                    let name = rest.strip_prefix("0.").unwrap_or(rest).to_owned();
                    Some(Setting {
                        name,
                        ..setting.clone()
                    })
                };
                let inner: Vec<Setting> = settings.iter().filter_map(inner).collect();
                let path = format!("{path}.{first}");
                let object = schema.object(&path, |schema| members(schema, &path, &inner));
                match is_list {
                    true => schema.array(&object),
                    false => object,
                }
            }
        };
        all.push(Member::new(first.to_owned(), of, setting.is_optional));
    }
    all
}

fn takes(schema: &mut Schema, path: &str, takes: Takes) -> String {
    match takes {
        Takes::Bool => bool::describe(schema),
        Takes::Int => u64::describe(schema),
        Takes::Str => String::describe(schema),
        Takes::Word(words) => schema.enumeration(path, words),
        Takes::Node => schema.alternate("BlockdevRef", |schema| {
            vec![describe_open(schema), String::describe(schema)]
        }),
        Takes::NodeOrNone => schema.alternate("BlockdevRefOrNull", |schema| {
            vec![
                describe_open(schema),
                String::describe(schema),
                schema.builtin("null", "null"),
            ]
        }),
    }
}
