//! How a run ends: the exit codes, and the failures that lead to them. The codes are a contract
//! with scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use ringway_client::{BuildError, ConnectError, ConsumeError, ErrorCode, RequestError};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something was tried and failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The surroundings are missing: no broker to connect to, no input, no room for the output.
    Environment = 3,
    /// The topic or partition doesn't exist.
    NotFound = 4,
    /// The broker understood and said no.
    Refused = 5,
}

impl Exit {
    /// The exit for an error code of the protocol.
    pub(crate) const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition => Self::NotFound,
            ErrorCode::TopicExists
            | ErrorCode::InvalidTopicName
            | ErrorCode::InvalidPartitions
            | ErrorCode::InvalidConfig
            | ErrorCode::UnsupportedVersion
            | ErrorCode::BatchTooLarge
            | ErrorCode::RecordTooLarge
            | ErrorCode::UnsupportedCodec
            | ErrorCode::OffsetOutOfRange => Self::Refused,
            _ => Self::Failed,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Environment => "environment",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
        }
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads the output any more: the end of the work, not a fault.
    ClosedPipe,
    /// Something to tell.
    Told {
        /// The exit code.
        exit: Exit,
        /// The facts and what to do next.
        message: String,
    },
}

impl Failure {
    /// A failure with its facts.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told {
            exit,
            message: message.into(),
        }
    }

    /// Writing the output failed.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        Self::new(
            Exit::Environment,
            format!("writing the output failed: {error}"),
        )
    }

    /// Reading the input failed.
    pub(crate) fn input(error: &io::Error) -> Self {
        Self::new(
            Exit::Environment,
            format!("reading the input failed: {error}"),
        )
    }

    /// Tells on standard error, as text or as a JSON object, and yields the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        let Self::Told { exit, message } = self else {
            return ExitCode::SUCCESS;
        };
        let line = if json {
            let exit_name = exit.name();
            serde_json::json!({ "error": exit_name, "exit": *exit as u8, "message": message })
                .to_string()
        } else {
            format!("ringway: {message}")
        };
        crate::output::tell(&line);
        ExitCode::from(*exit as u8)
    }
}

/// The failure for what a broker answered.
fn answered(code: Option<ErrorCode>, message: String) -> Failure {
    Failure::new(code.map_or(Exit::Failed, Exit::of), message)
}

/// The failure for a topic that isn't there, with the way to have it.
fn unknown_topic(topic: &str) -> Failure {
    let message = format!(
        "topic {topic} doesn't exist: create it with `ringway topic create {topic} --partitions N`"
    );
    Failure::new(Exit::NotFound, message)
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = match &error {
            ConnectError::NoBroker | ConnectError::Address { .. } => Exit::Usage,
            ConnectError::Unreachable { .. } => Exit::Environment,
            ConnectError::Refused(fault) => Exit::of(fault.code),
        };
        let hint = match exit {
            Exit::Environment => "; name another with --broker or RINGWAY_BROKER",
            _ => "",
        };
        Self::new(exit, format!("{error}{hint}"))
    }
}

impl From<&RequestError> for Failure {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::UnknownTopic { topic } => unknown_topic(topic),
            RequestError::Unreachable { .. } => Self::new(Exit::Environment, error.to_string()),
            _ => answered(error.code(), error.to_string()),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::from(&error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match &error {
            BuildError::Setting { .. } => Self::new(Exit::Usage, error.to_string()),
            BuildError::Request(error) => Self::from(error),
        }
    }
}

impl From<&ConsumeError> for Failure {
    fn from(error: &ConsumeError) -> Self {
        let exit = match error {
            ConsumeError::Request(error) => return Self::from(error),
            ConsumeError::Gone { .. } => Exit::NotFound,
            ConsumeError::Refused { fault, .. } => Exit::of(fault.code),
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedPipe => f.write_str("the output was closed"),
            Self::Told { message, .. } => f.write_str(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(failure: &Failure) -> Option<Exit> {
        match failure {
            Failure::ClosedPipe => None,
            Failure::Told { exit, .. } => Some(*exit),
        }
    }

    #[test]
    fn codes_are_those_of_the_contract() {
        let exits = [
            Exit::Failed,
            Exit::Usage,
            Exit::Environment,
            Exit::NotFound,
            Exit::Refused,
        ];
        assert_eq!(exits.map(|exit| exit as u8), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_a_broker_says_has_its_exit() {
        assert_eq!(Exit::of(ErrorCode::UnknownTopic), Exit::NotFound);
        assert_eq!(Exit::of(ErrorCode::UnknownPartition), Exit::NotFound);
        assert_eq!(Exit::of(ErrorCode::TopicExists), Exit::Refused);
        assert_eq!(Exit::of(ErrorCode::InvalidConfig), Exit::Refused);
        assert_eq!(Exit::of(ErrorCode::StorageFailed), Exit::Failed);
    }

    #[test]
    fn a_retriable_error_is_never_a_refusal() {
        for &code in ErrorCode::ALL {
            if code.retriable() {
                assert_eq!(Exit::of(code), Exit::Failed, "{code}");
            }
        }
    }

    #[test]
    fn an_unknown_topic_names_the_command_that_creates_it() {
        let unknown = RequestError::UnknownTopic {
            topic: "orders".to_owned(),
        };
        let failure = Failure::from(unknown);
        assert_eq!(exit(&failure), Some(Exit::NotFound));
        let message = failure.to_string();
        assert!(
            message.contains("`ringway topic create orders --partitions N`"),
            "{message}"
        );
    }

    #[test]
    fn no_broker_is_the_environment_and_no_address_the_usage() {
        let unreachable = ConnectError::Unreachable { tried: Vec::new() };
        let failure = Failure::from(unreachable);
        assert_eq!(exit(&failure), Some(Exit::Environment));
        assert!(failure.to_string().contains("--broker"), "{failure}");
        let failure = Failure::from(ConnectError::Address {
            text: "x".to_owned(),
        });
        assert_eq!(exit(&failure), Some(Exit::Usage));
    }

    #[test]
    fn a_closed_pipe_is_no_fault() {
        let closed = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert!(matches!(closed, Failure::ClosedPipe));
        let full = Failure::output(&io::ErrorKind::StorageFull.into());
        assert!(matches!(
            full,
            Failure::Told {
                exit: Exit::Environment,
                ..
            }
        ));
    }
}
