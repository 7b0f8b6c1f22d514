//! Errors as they cross: a status, and a text in the buffer of the answer.

use super::Status;
use crate::{CallError, CallErrorKind};

impl Status {
    /// Returns the status that tells the other side of an error of this kind. Kinds that only a host can make are
    /// failures to a plugin.
    pub fn of(kind: CallErrorKind) -> Status {
        match kind {
            CallErrorKind::Panicked => Status::PANICKED,
            CallErrorKind::Unsupported => Status::UNSUPPORTED,
            CallErrorKind::Malformed => Status::MALFORMED,
            _ => Status::FAILED,
        }
    }

    /// Returns the error that the other side tells of with this status; `text` gives its message.
    ///
    /// # Errors
    /// It is not [`OK`](Status::OK). A status that the ABI does not have is a [malformed](CallErrorKind::Malformed)
    /// answer.
    pub fn into_result(self, text: impl FnOnce() -> String) -> Result<(), CallError> {
        let kind = match self {
            Status::OK => return Ok(()),
            Status::FAILED => CallErrorKind::Failed,
            Status::PANICKED => CallErrorKind::Panicked,
            Status::UNSUPPORTED => return Err(CallError::unsupported()),
            Status::MALFORMED => CallErrorKind::Malformed,
            Status(unknown) => {
                let text = format!("the plugin answered with the unknown status {unknown}: it does not follow the ABI");
                return Err(CallError::new(CallErrorKind::Malformed, text));
            }
        };
        Err(CallError::new(kind, text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_what_was_written() {
        for kind in [CallErrorKind::Failed, CallErrorKind::Panicked, CallErrorKind::Malformed] {
            let error = Status::of(kind).into_result(|| "why".to_owned()).unwrap_err();
            assert_eq!(error, CallError::new(kind, "why"));
        }
        assert_eq!(Status::of(CallErrorKind::Unsupported).into_result(String::new), Err(CallError::unsupported()));
        let told = Status::of(CallErrorKind::Saturated).into_result(String::new);
        assert_eq!(told.unwrap_err().kind(), CallErrorKind::Failed);
        assert_eq!(Status::OK.into_result(String::new), Ok(()));
        assert_eq!(Status(99).into_result(String::new).unwrap_err().kind(), CallErrorKind::Malformed);
    }
}
