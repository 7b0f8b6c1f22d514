//! What the child of a rehearsal is told, and the words of its verdict.

/// Where the child finds its [`Call`].
pub(super) const VARIABLE: &str = "HOTSLOT_REHEARSAL";
/// Where the child may make files.
pub(super) const FOLDER_VARIABLE: &str = "HOTSLOT_REHEARSAL_FOLDER";

pub(super) const REACHED: &str = "reached";
/// Followed by how long that took, in microseconds.
pub(super) const LOADED: &str = "loaded";
pub(super) const PASSED: &str = "passed";
pub(super) const REFUSED: &str = "refused";

/// How much more than the artifact a child may write into a file.
pub(super) const FILE_SLACK: u64 = 16 << 20;

/// What the child has to know before it reads its input; written into [`VARIABLE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) token: String,
    pub(super) create: bool,
    pub(super) from_memory: bool,
    pub(super) config: usize,
    /// The sizes of the libraries that are loaded first.
    pub(super) beside: Vec<usize>,
}

impl Call {
    pub(super) fn write(&self) -> String {
        let Call { token, create, from_memory, config, beside } = self;
        let beside = beside.iter().map(|size| format!(" {size}")).collect::<String>();
        format!("{token} {create} {from_memory} {config}{beside}")
    }

    pub(super) fn read(text: &str) -> Option<Call> {
        let mut fields = text.split(' ');
        let call = Call {
            token: fields.next()?.to_owned(),
            create: fields.next()?.parse().ok()?,
            from_memory: fields.next()?.parse().ok()?,
            config: fields.next()?.parse().ok()?,
            beside: fields.map(|size| size.parse().ok()).collect::<Option<_>>()?,
        };
        Some(call)
    }
}

#[cfg(test)]
mod tests {
    use super::Call;

    #[test]
    fn a_call_survives_the_environment() {
        let call = Call {
            token: "0123456789abcdef".to_owned(),
            create: true,
            from_memory: false,
            config: 17,
            beside: vec![1, 4096],
        };
        assert_eq!(Call::read(&call.write()), Some(call.clone()));
        let alone = Call { beside: Vec::new(), ..call };
        assert_eq!(Call::read(&alone.write()), Some(alone));
        assert_eq!(Call::read("1"), None);
    }
}
