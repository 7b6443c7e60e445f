//! Finding JSON values in a stream of bytes that comes in any pieces, and finding them again after garbage.

/// Deepest nesting of brackets.
const DEPTH_MAX: usize = 100;
/// Longest value. A client that sends more is broken.
const SIZE_MAX: usize = 4 << 20;

/// What cannot be a JSON value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StreamError {
    /// Too many brackets.
    #[error("JSON nesting depth limit exceeded")]
    TooDeep,
    /// Too long.
    #[error("JSON token size limit exceeded")]
    TooLong,
    /// A word that is none of JSON's.
    #[error("JSON parse error, invalid keyword '{0}'")]
    Keyword(String),
    /// Brackets that do not match.
    #[error("JSON parse error, expecting value")]
    Bracket,
    /// Something else.
    #[error("Invalid JSON syntax")]
    Syntax,
}

/// Cuts the stream into the texts of values.
#[derive(Default, Debug)]
pub struct JsonStream {
    text: Vec<u8>,
    brackets: Vec<u8>,
    state: State,
    /// Where the current word began.
    word: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    /// Between tokens.
    #[default]
    Plain,
    Word,
    String,
    Escape,
    /// After an error: to the next line or object.
    Skip,
}

impl JsonStream {
    /// Takes one byte. `Some` is a whole value's text, or an error after which the stream goes on.
    pub fn push(&mut self, byte: u8) -> Option<Result<Vec<u8>, StreamError>> {
        match self.state {
            State::Skip if byte == b'{' => self.state = State::Plain,
            State::Skip => {
                if byte == b'\n' {
                    self.state = State::Plain;
                }
                return None;
            }
            _ => {}
        }
        let result = self.step(byte);
        if matches!(result, Some(Err(_))) {
            self.text.clear();
            self.brackets.clear();
            self.state = if byte == b'\n' {
                State::Plain
            } else {
                State::Skip
            };
        }
        result
    }

    fn step(&mut self, byte: u8) -> Option<Result<Vec<u8>, StreamError>> {
        if self.text.len() >= SIZE_MAX {
            return Some(Err(StreamError::TooLong));
        }
        match self.state {
            State::Escape => {
                self.state = State::String;
                self.text.push(byte);
                return None;
            }
            State::String => {
                match byte {
                    b'"' => self.state = State::Plain,
                    b'\\' => self.state = State::Escape,
                    // A string never spans lines: without this a lost quote would swallow all that follows.
                    0..0x20 => return Some(Err(StreamError::Syntax)),
                    _ => {}
                }
                self.text.push(byte);
                return if self.state == State::Plain {
                    self.value_end()
                } else {
                    None
                };
            }
            State::Word if is_word(byte) => {
                self.text.push(byte);
                return None;
            }
            State::Word => {
                self.state = State::Plain;
                let word = self.text.get(self.word..).unwrap_or_default();
                if !is_valid_word(word) {
                    let shown: String = String::from_utf8_lossy(word).chars().take(32).collect();
                    return Some(Err(StreamError::Keyword(shown)));
                }
                if let Some(done) = self.value_end() {
                    // The byte after a bare value can only begin the next one; between objects it is white space.
                    let _ = self.step(byte);
                    return Some(done);
                }
            }
            State::Plain | State::Skip => {}
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                if !self.text.is_empty() {
                    self.text.push(byte);
                }
                None
            }
            b'{' | b'[' => {
                if self.brackets.len() >= DEPTH_MAX {
                    return Some(Err(StreamError::TooDeep));
                }
                self.brackets.push(if byte == b'{' { b'}' } else { b']' });
                self.text.push(byte);
                None
            }
            b'}' | b']' => {
                if self.brackets.pop() != Some(byte) {
                    return Some(Err(StreamError::Bracket));
                }
                self.text.push(byte);
                self.value_end()
            }
            b'"' => {
                self.state = State::String;
                self.text.push(byte);
                None
            }
            b',' | b':' if !self.brackets.is_empty() => {
                self.text.push(byte);
                None
            }
            _ if is_word(byte) => {
                self.state = State::Word;
                self.word = self.text.len();
                self.text.push(byte);
                None
            }
            _ => Some(Err(StreamError::Syntax)),
        }
    }

    /// The value is whole when no bracket is open.
    fn value_end(&mut self) -> Option<Result<Vec<u8>, StreamError>> {
        self.brackets
            .is_empty()
            .then(|| Ok(std::mem::take(&mut self.text)))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

fn is_valid_word(word: &[u8]) -> bool {
    match word.first() {
        Some(b'-' | b'0'..=b'9') => true,
        _ => matches!(word, b"true" | b"false" | b"null"),
    }
}
