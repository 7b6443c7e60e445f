//! What can go wrong in a whole-machine test.

use std::path::PathBuf;

/// A failed step, with what was seen until then.
#[derive(thiserror::Error)]
pub enum Error {
    /// The console did not show what it should have.
    #[error("waited for {wanted:?} on the console, but {reason}\n{seen}")]
    NotSeen {
        /// The text that was waited for.
        wanted: String,
        /// Why waiting ended.
        reason: &'static str,
        /// The end of the console and of the standard error output.
        seen: String,
    },
    /// The machine did not end, or not as it should have.
    #[error("{reason}\n{seen}")]
    Exit {
        /// What happened instead.
        reason: String,
        /// The end of the console and of the standard error output.
        seen: String,
    },
    /// The monitor answered a command with an error.
    #[error("QMP command {command} failed: {answer}")]
    Qmp {
        /// The command's name.
        command: String,
        /// The `error` member of the answer.
        answer: serde_json::Value,
    },
    /// The monitor's stream ended or held something else than QMP.
    #[error("QMP: {0}")]
    QmpStream(String),
    /// The program could not be built or started.
    #[error("cannot start {}: {reason}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The host's or cargo's reason.
        reason: String,
    },
    /// A test that would be skipped, where skipping is not allowed.
    #[error("{0} (and CI_NO_SKIP is set)")]
    Skipped(String),
    /// The host failed at something else.
    #[error("{0}")]
    Host(#[from] std::io::Error),
}

/// Tests return errors, and the test runner prints them in this form: keep it readable.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
