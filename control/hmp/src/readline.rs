//! Editing one line on a terminal.

use std::collections::VecDeque;

/// Longest line.
const LINE_MAX: usize = 4096;
/// Lines remembered.
const HISTORY_MAX: usize = 64;

/// What a key led to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Write this to the terminal.
    Show(String),
    /// The line is done; write this to the terminal first.
    Line(String, String),
}

/// A line that grows with the keys.
#[derive(Debug)]
pub struct LineEditor {
    prompt: &'static str,
    line: Vec<char>,
    /// Where the next character goes.
    cursor: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown; `None` for the one being written.
    shown: Option<usize>,
    /// The one being written, while another is shown.
    draft: Vec<char>,
    state: State,
    /// A character of several bytes, so far.
    utf8: Vec<u8>,
    was_return: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Plain,
    Escape,
    /// After `ESC [`, with the number so far.
    Control(u8),
    /// After `ESC O`.
    Application,
}

/// Keys beside characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    Delete,
}

impl LineEditor {
    /// An empty line after `prompt`.
    pub fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            line: Vec::new(),
            cursor: 0,
            history: VecDeque::new(),
            shown: None,
            draft: Vec::new(),
            state: State::Plain,
            utf8: Vec::new(),
            was_return: false,
        }
    }

    /// Whether nothing has been typed.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The prompt and the line so far, to show anew.
    pub fn redraw(&self) -> String {
        let text: String = self.line.iter().collect();
        let back = self.line.len().saturating_sub(self.cursor);
        let back = if back > 0 {
            format!("\x1b[{back}D")
        } else {
            String::new()
        };
        format!("\r{}{text}\x1b[K{back}", self.prompt)
    }

    /// Takes one byte. `complete` says what could come at the end of a beginning.
    pub fn key(&mut self, byte: u8, complete: &dyn Fn(&str) -> Vec<String>) -> Option<Edit> {
        let after_return = std::mem::take(&mut self.was_return);
        match (self.state, byte) {
            (State::Escape, b'[') => self.state = State::Control(0),
            (State::Escape, b'O') => self.state = State::Application,
            (State::Escape, _) => self.state = State::Plain,
            (State::Control(n), b'0'..=b'9') => {
                self.state = State::Control(n.saturating_mul(10).saturating_add(byte - b'0'));
            }
            (State::Control(_), b';') => self.state = State::Control(0),
            (State::Control(number), _) => {
                self.state = State::Plain;
                return self.special(number, byte);
            }
            (State::Application, _) => {
                self.state = State::Plain;
                return self.special(0, byte);
            }
            (State::Plain, b'\n') if after_return => {}
            (State::Plain, b'\r' | b'\n') => {
                self.was_return = byte == b'\r';
                return Some(self.enter());
            }
            (State::Plain, 0x1b) => self.state = State::Escape,
            (State::Plain, 0..0x20 | 0x7f) => return self.control(byte, complete),
            (State::Plain, _) => return self.text(byte),
        }
        None
    }

    fn enter(&mut self) -> Edit {
        let line: String = self.line.iter().collect();
        self.set_line(Vec::new());
        self.shown = None;
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            self.history.push_back(line.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
        Edit::Line("\n".to_owned(), line)
    }

    fn text(&mut self, byte: u8) -> Option<Edit> {
        self.utf8.push(byte);
        let character = match std::str::from_utf8(&self.utf8) {
            Ok(text) => text.chars().next(),
            Err(e) if e.error_len().is_none() => return None,
            Err(_) => None,
        };
        self.utf8.clear();
        let character = character.filter(|c| !c.is_control())?;
        if self.line.len() >= LINE_MAX {
            return None;
        }
        self.line.insert(self.cursor, character);
        self.cursor += 1;
        // At the end the terminal needs no more than the character.
        if self.cursor == self.line.len() {
            return Some(Edit::Show(character.to_string()));
        }
        Some(Edit::Show(self.redraw()))
    }

    fn control(&mut self, byte: u8, complete: &dyn Fn(&str) -> Vec<String>) -> Option<Edit> {
        self.utf8.clear();
        let ctrl = char::from(byte | 0x60);
        match byte {
            0x08 | 0x7f => {
                self.cursor = self.cursor.checked_sub(1)?;
                self.line.remove(self.cursor);
            }
            b'\t' => return self.tab(complete),
            _ => match ctrl {
                'a' => return self.act(Key::Home),
                'e' => return self.act(Key::End),
                'b' => return self.act(Key::Left),
                'f' => return self.act(Key::Right),
                'p' => return self.act(Key::Up),
                'n' => return self.act(Key::Down),
                'd' => return self.act(Key::Delete),
                'c' => {
                    self.set_line(Vec::new());
                    return Some(Edit::Show(format!("^C\n{}", self.redraw())));
                }
                'k' => self.line.truncate(self.cursor),
                'l' => {}
                'u' => {
                    self.line.drain(..self.cursor);
                    self.cursor = 0;
                }
                'w' => {
                    let before = self.line.get(..self.cursor).unwrap_or_default();
                    let word_end = before
                        .iter()
                        .rposition(|c| !c.is_whitespace())
                        .map_or(0, |at| at + 1);
                    let word = before.get(..word_end).unwrap_or_default();
                    let start = word
                        .iter()
                        .rposition(|c| c.is_whitespace())
                        .map_or(0, |at| at + 1);
                    self.line.drain(start..self.cursor);
                    self.cursor = start;
                }
                _ => return None,
            },
        }
        Some(Edit::Show(self.redraw()))
    }

    fn special(&mut self, number: u8, last: u8) -> Option<Edit> {
        let key = match (last, number) {
            (b'A', _) => Key::Up,
            (b'B', _) => Key::Down,
            (b'C', _) => Key::Right,
            (b'D', _) => Key::Left,
            (b'H', _) | (b'~', 1 | 7) => Key::Home,
            (b'F', _) | (b'~', 4 | 8) => Key::End,
            (b'~', 3) => Key::Delete,
            _ => return None,
        };
        self.act(key)
    }

    fn act(&mut self, key: Key) -> Option<Edit> {
        match key {
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.line.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.line.len(),
            Key::Delete if self.cursor < self.line.len() => {
                self.line.remove(self.cursor);
            }
            Key::Delete => return None,
            Key::Up => {
                let at = self.shown.unwrap_or(self.history.len()).checked_sub(1)?;
                if self.shown.is_none() {
                    self.draft = self.line.clone();
                }
                self.shown = Some(at);
                let line = self.history.get(at)?.chars().collect();
                self.set_line(line);
            }
            Key::Down => {
                let at = self.shown? + 1;
                let line = self.history.get(at).map(|line| line.chars().collect());
                self.shown = line.is_some().then_some(at);
                let line = line.unwrap_or_else(|| std::mem::take(&mut self.draft));
                self.set_line(line);
            }
        }
        Some(Edit::Show(self.redraw()))
    }

    fn set_line(&mut self, line: Vec<char>) {
        self.cursor = line.len();
        self.line = line;
    }

    fn tab(&mut self, complete: &dyn Fn(&str) -> Vec<String>) -> Option<Edit> {
        let before: String = self
            .line
            .get(..self.cursor)
            .unwrap_or_default()
            .iter()
            .collect();
        let found = complete(&before);
        let first = found.first()?;
        let shared = found.iter().fold(first.as_str(), |shared, name| {
            let same = shared
                .bytes()
                .zip(name.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            shared.get(..same).unwrap_or_default()
        });
        let word_len = before
            .rsplit(char::is_whitespace)
            .next()
            .unwrap_or_default()
            .len();
        let mut more = shared.get(word_len..).unwrap_or_default().to_owned();
        if found.len() == 1 {
            more.push(' ');
        }
        let list = if more.is_empty() {
            format!("\n{}\n", found.join("  "))
        } else {
            String::new()
        };
        for c in more.chars().take(LINE_MAX.saturating_sub(self.line.len())) {
            self.line.insert(self.cursor, c);
            self.cursor += 1;
        }
        Some(Edit::Show(format!("{list}{}", self.redraw())))
    }
}
