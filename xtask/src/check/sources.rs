//! The files of the repository, with what the lints need to know about each.

use std::path::Path;

use anyhow::{Context, Result};

use crate::host;

/// Folders at the top that git ignores.
const NOT_OURS: &[&str] = &[".git", ".cache", "build"];

/// All text files of the repository.
pub(super) struct Sources {
    pub(super) files: Vec<Source>,
}

/// One file.
pub(super) struct Source {
    /// From the workspace's root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl Sources {
    pub(super) fn read() -> Result<Self> {
        let root = host::workspace();
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder)
                .with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                let Some(name) = path.strip_prefix(&root).ok().and_then(Path::to_str) else {
                    continue;
                };
                if entry.file_type()?.is_dir() {
                    if !NOT_OURS.contains(&name) {
                        folders.push(path);
                    }
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    // What is not text is a binary golden.
                    files.push(Source {
                        path: name.to_owned(),
                        text,
                    });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files
            .iter()
            .filter(|source| source.path.ends_with(".rs"))
    }
}

impl Source {
    pub(super) fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether the whole file is test code.
    pub(super) fn is_test(&self) -> bool {
        self.file_name().starts_with("test")
            || self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.contains("/benches/")
    }

    /// Numbered lines up to the unit tests, with comments and the insides of strings blanked.
    pub(super) fn code_lines(&self) -> Vec<(usize, String)> {
        let mut lines = Vec::new();
        let mut in_tests = false;
        for (number, line) in self.text.lines().enumerate() {
            if line.starts_with("#[cfg(test)]") {
                in_tests = true;
            } else if in_tests && line.starts_with("mod ") {
                // `mod tests { ... }` is the rest of the file, `mod tests;` one line.
                if line.ends_with('{') {
                    break;
                }
                in_tests = false;
            }
            lines.push((number + 1, code(line)));
        }
        lines
    }
}

/// A line without its comment and without the insides of strings. Strings that span lines are
/// taken for code: good enough for a lint with a way out.
fn code(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            '"' => {
                quoted = !quoted;
                out.push('"');
            }
            '\'' if !quoted && chars.peek() == Some(&'"') => {
                chars.next();
            }
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            _ if quoted => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(code(r#"let a = "x // y"; // z"#), r#"let a = ""; "#);
        assert_eq!(code(r"match c { '\'' => 1 }"), r"match c { '\'' => 1 }");
    }

    #[test]
    fn code_ends_where_the_unit_tests_begin() {
        let source = Source {
            path: "hw/x/src/lib.rs".to_owned(),
            text: "a\n#[cfg(test)]\nmod tests {\nb\n}\n".to_owned(),
        };
        let lines: Vec<usize> = source
            .code_lines()
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(lines, [1, 2]);
    }
}
