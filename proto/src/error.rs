//! Errors as a user meets them: a kind that says what the caller can do, and one sentence.
//!
//! Parts keep detailed errors of their own and turn them into this one at their public surface.
//! The kind maps to gRPC and HTTP status codes here and nowhere else.

use std::fmt;

/// The result of anything that can be told to a user.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller must do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: change it.
    InvalidArgument,
    /// A named thing does not exist.
    NotFound,
    /// A named thing exists already.
    AlreadyExists,
    /// The request is right but the system is not in the state for it.
    FailedPrecondition,
    /// A limit (memory, size, count) was reached: ask for less, or raise the limit.
    ResourceExhausted,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller went away or cancelled.
    Cancelled,
    /// Try again later.
    Unavailable,
    /// A named segment or tail is not here any more: plan again from a newer catalog snapshot.
    SegmentGone,
    /// Stored bytes failed a check; nothing was answered from them.
    DataLoss,
    /// Valid, and not supported by this version.
    Unsupported,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// The gRPC status code.
    pub fn grpc_code(self) -> tonic::Code {
        match self {
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::NotFound => tonic::Code::NotFound,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::SegmentGone => tonic::Code::Aborted,
            Self::DataLoss => tonic::Code::DataLoss,
            Self::Unsupported => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The HTTP status code.
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::FailedPrecondition => 409,
            Self::ResourceExhausted => 429,
            Self::DeadlineExceeded => 504,
            Self::Cancelled => 499,
            Self::Unavailable | Self::SegmentGone => 503,
            Self::DataLoss | Self::Internal => 500,
            Self::Unsupported => 501,
        }
    }
}

/// An error that can be shown to a user: lowercase, names the place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of `kind` with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with `place` (a file, a table, a request) put before its sentence.
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{place}: {}", self.message),
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

constructors! {
    /// See [`ErrorKind::InvalidArgument`].
    invalid => InvalidArgument,
    /// See [`ErrorKind::NotFound`].
    not_found => NotFound,
    /// See [`ErrorKind::AlreadyExists`].
    already_exists => AlreadyExists,
    /// See [`ErrorKind::FailedPrecondition`].
    precondition => FailedPrecondition,
    /// See [`ErrorKind::ResourceExhausted`].
    exhausted => ResourceExhausted,
    /// See [`ErrorKind::DeadlineExceeded`].
    deadline => DeadlineExceeded,
    /// See [`ErrorKind::Cancelled`].
    cancelled => Cancelled,
    /// See [`ErrorKind::Unavailable`].
    unavailable => Unavailable,
    /// See [`ErrorKind::SegmentGone`].
    segment_gone => SegmentGone,
    /// See [`ErrorKind::DataLoss`].
    data_loss => DataLoss,
    /// See [`ErrorKind::Unsupported`]; the sentence starts with "not supported: ".
    unsupported => Unsupported,
    /// See [`ErrorKind::Internal`].
    internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.kind.grpc_code(), error.message)
    }
}
