//! qemu-img's arguments: short options that may be bundled, long ones with `=` or a word.

use anyhow::{Result, bail};
use control_options::suggest::nearest;

/// The arguments of one command.
pub(super) struct Args {
    usage: &'static str,
    options: Vec<(String, Option<String>)>,
    words: Vec<String>,
    rest: Vec<String>,
}

impl Args {
    pub(super) fn new(usage: &'static str, rest: &[String]) -> Self {
        Args {
            usage,
            options: Vec::new(),
            words: Vec::new(),
            rest: rest.to_vec(),
        }
    }

    /// Takes the arguments apart. `switches` stand alone, `valued` are followed by a value: single
    /// letters, and long names.
    pub(super) fn parse(&mut self, switches: &[&str], valued: &[&str]) -> Result<()> {
        if self
            .rest
            .iter()
            .any(|arg| arg == "--object" || arg.starts_with("--object="))
        {
            bail!(
                "'--object': encrypted images are not supported, so there are no secrets to give"
            );
        }
        let mut rest = std::mem::take(&mut self.rest).into_iter();
        let mut only_words = false;
        while let Some(arg) = rest.next() {
            // '-1G' is no option, but how much 'resize' takes away.
            let is_number = arg.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
            if only_words || arg == "-" || !arg.starts_with('-') || is_number {
                self.words.push(arg);
            } else if arg == "--" {
                only_words = true;
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if switches.contains(&name) && value.is_none() {
                    self.options.push((name.to_owned(), None));
                } else if valued.contains(&name) {
                    let value = value.or_else(|| rest.next());
                    let Some(value) = value else {
                        bail!("'--{name}' lacks a value; usage: {}", self.usage);
                    };
                    self.options.push((name.to_owned(), Some(value)));
                } else {
                    let names = switches.iter().chain(valued).copied();
                    let hint = nearest(name, names.filter(|name| name.len() > 1))
                        .map(|near| format!("did you mean '--{near}'?"))
                        .unwrap_or_else(|| format!("usage: {}", self.usage));
                    bail!("there is no option '--{name}'; {hint}");
                }
            } else {
                self.bundle(&arg, &mut rest, switches, valued)?;
            }
        }
        Ok(())
    }

    fn bundle(
        &mut self,
        arg: &str,
        rest: &mut impl Iterator<Item = String>,
        switches: &[&str],
        valued: &[&str],
    ) -> Result<()> {
        let mut letters = arg.chars().skip(1);
        while let Some(letter) = letters.next() {
            let name = letter.to_string();
            if switches.contains(&name.as_str()) {
                self.options.push((name, None));
                continue;
            }
            if !valued.contains(&name.as_str()) {
                bail!("there is no option '-{name}'; usage: {}", self.usage);
            }
            let tail: String = letters.by_ref().collect();
            let value = Some(tail)
                .filter(|tail| !tail.is_empty())
                .or_else(|| rest.next());
            let Some(value) = value else {
                bail!("'-{name}' lacks a value; usage: {}", self.usage);
            };
            self.options.push((name, Some(value)));
        }
        Ok(())
    }

    /// Whether a switch was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| given == name)
    }

    /// The last value of an option.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let given = self.options.iter().rev().find(|(given, _)| given == name);
        given.and_then(|(_, value)| value.as_deref())
    }

    /// All values of an option.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let given = self.options.iter().filter(move |(given, _)| given == name);
        given.filter_map(|(_, value)| value.as_deref())
    }

    /// The words, of which there must be so many.
    pub(super) fn words(&self, count: std::ops::RangeInclusive<usize>) -> Result<&[String]> {
        if !count.contains(&self.words.len()) {
            bail!(
                "{} file names or sizes were given; usage: {}",
                self.words.len(),
                self.usage
            );
        }
        Ok(&self.words)
    }

    /// The only word.
    pub(super) fn one(&self) -> Result<&str> {
        match self.words(1..=1)? {
            [word] => Ok(word),
            _ => bail!("usage: {}", self.usage),
        }
    }

    /// The two words.
    pub(super) fn two(&self) -> Result<(&str, &str)> {
        match self.words(2..=2)? {
            [first, second] => Ok((first, second)),
            _ => bail!("usage: {}", self.usage),
        }
    }

    /// Whether `--output=json` was given.
    pub(super) fn wants_json(&self) -> Result<bool> {
        match self.value("output") {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => bail!("there is no output '{other}'; there are human, json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Args> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut args = Args::new("FILE", &words);
        args.parse(&["p", "q", "shrink"], &["f", "output"])?;
        Ok(args)
    }

    #[test]
    fn options_may_be_bundled_and_come_anywhere() {
        let args = args("-pqf raw a --output=json -fqcow2 b").unwrap();
        assert!(args.has("p") && args.has("q") && args.wants_json().unwrap());
        assert_eq!(args.value("f"), Some("qcow2"));
        assert_eq!(args.words(2..=2).unwrap(), ["a", "b"]);
        assert!(args.words(1..=1).is_err());
    }

    #[test]
    fn unknown_options_are_named() {
        let error = args("--shrnik").err().unwrap().to_string();
        assert_eq!(
            error,
            "there is no option '--shrnik'; did you mean '--shrink'?"
        );
        assert!(args("-x").is_err() && args("-f").is_err());
    }
}
