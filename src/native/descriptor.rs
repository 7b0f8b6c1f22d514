//! The descriptor of a plugin, read from the file before any code of it runs, and compared with what was loaded.

use hotslot_plugin::abi::{self, Identity, Text};
use semver::Version;

use crate::{Manifest, escape_untrusted};

/// Why a descriptor was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The bytes are no descriptor.
    #[error("{} is not a hotslot descriptor: export the plugin with hotslot_plugin::export!", abi::DESCRIPTOR_SYMBOL)]
    NotADescriptor,
    /// Another version of the C ABI.
    #[error("the plugin speaks ABI {plugin}, and this host ABI {host}: build both against the same hotslot-plugin")]
    Abi {
        /// The plugin's version.
        plugin: u32,
        /// The host's version.
        host: u32,
    },
    /// A descriptor of another size than this ABI version has.
    #[error("the descriptor says that it has {found} bytes, and ABI {} has {expected}", abi::ABI_VERSION)]
    Size {
        /// What it says.
        found: usize,
        /// What the host knows.
        expected: usize,
    },
    /// The plugin aborts on panic, so that its panics would end the host.
    #[error(
        "the plugin was built with panic=abort, so a panic in it would abort the host: build it with panic=unwind, \
         or accept the risk with native.dangerous().allow_panic_abort()"
    )]
    PanicAborts,
    /// A panic strategy that the ABI does not know.
    #[error("the plugin states the unknown panic strategy {found}")]
    PanicStrategy {
        /// What it says.
        found: u32,
    },
    /// A text of the descriptor that is not one.
    #[error("the plugin's {field} is {problem}")]
    Text {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Another interface than the host's.
    #[error(
        "the plugin implements the interface \"{plugin}\", and this slot takes \"{host}\": build it against that one"
    )]
    Interface {
        /// The plugin's interface.
        plugin: String,
        /// The host's interface.
        host: String,
    },
    /// A contract, and no function to call the interface's methods through.
    #[error(
        "the plugin carries a contract and no function for its methods: export it with hotslot_plugin::export!(Type as Interface)"
    )]
    NoInvoke,
    /// A table of functions that is not that of the contract beside it.
    #[error(
        "the plugin lists {found} functions behind the one for all methods, and its contract has {methods} methods: list one \
         for each, or none"
    )]
    MethodCount {
        /// How many there are.
        found: usize,
        /// How many methods the contract has.
        methods: usize,
    },
    /// More functions than any interface has.
    #[error(
        "the descriptor says that its interface has {found} functions, and {most} are the most: set function_count"
    )]
    FunctionCount {
        /// What it says.
        found: u32,
        /// The limit.
        most: u32,
    },
    /// A pointer of the loaded descriptor is null.
    #[error("the plugin's descriptor has null for {entry}: define every entry; one that does nothing returns a status")]
    NullEntry {
        /// Which one.
        entry: String,
    },
    /// A pointer of the loaded descriptor leads to where no image has what it should point to.
    #[error("the plugin's descriptor is broken: {what} does not lie in a mapped image where it should")]
    OutsideImage {
        /// What is pointed to.
        what: String,
    },
    /// A pointer of the loaded descriptor, or the descriptor itself, is not aligned.
    #[error(
        "the plugin's descriptor is broken: {what} is misaligned; declare it with the types of the header, not packed"
    )]
    Misaligned {
        /// What is misaligned.
        what: &'static str,
    },
    /// The loaded library shows another descriptor than its file did.
    #[error("the loaded library says that it is {loaded}, and its bytes said {admitted}: the loader took another file")]
    NotWhatWasAdmitted {
        /// What the file said.
        admitted: String,
        /// What the library says.
        loaded: String,
    },
}

/// What the host asks of a descriptor.
pub(super) struct Expectation<'a> {
    /// The interface that the slot takes, in the raw layer.
    pub(super) interface: Option<&'a str>,
    /// Whether a plugin may abort on panic.
    pub(super) allow_panic_abort: bool,
}

/// Reads an identity from the bytes at the start of `section`.
pub(super) fn read(section: &[u8]) -> Result<Identity, DescriptorError> {
    let mut fields = Fields(section);
    // Magic and version come first and never move; what follows is of this version's layout only if they match.
    let magic = fields.take().ok_or(DescriptorError::NotADescriptor)?;
    if magic != abi::MAGIC {
        return Err(DescriptorError::NotADescriptor);
    }
    let version = fields.number()?;
    if version != abi::ABI_VERSION {
        return Err(DescriptorError::Abi { plugin: version, host: abi::ABI_VERSION });
    }
    let identity = Identity {
        magic,
        abi: version,
        size: fields.number()?,
        panic: fields.number()?,
        function_count: fields.number()?,
        name: fields.text()?,
        version: fields.text()?,
        interface: fields.text()?,
        schema: fields.text()?,
    };
    let (found, expected) = (identity.size as usize, size_of::<abi::Descriptor>());
    if found != expected || section.len() < expected {
        return Err(DescriptorError::Size { found: found.min(section.len()), expected });
    }
    Ok(identity)
}

/// The most functions that a descriptor may list: far more than an interface has, and few enough to look at each.
const MOST_FUNCTIONS: u32 = 65_536;

/// Returns the contract behind the descriptor at the start of `section`, if there is one.
pub(super) fn contract(section: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = section.get(size_of::<abi::Descriptor>()..)?.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u64::from_ne_bytes(*length)).ok()?;
    rest.get(..length).filter(|_| *magic == abi::CONTRACT_MAGIC)
}

/// Checks an identity against what the host expects, and says what the plugin is.
pub(super) fn check(identity: &Identity, expected: &Expectation<'_>) -> Result<Manifest, DescriptorError> {
    let manifest = manifest(identity)?;
    if identity.function_count > MOST_FUNCTIONS {
        return Err(DescriptorError::FunctionCount { found: identity.function_count, most: MOST_FUNCTIONS });
    }
    if let Some(host) = expected.interface
        && manifest.interface.as_deref() != Some(host)
    {
        let plugin = manifest.interface.unwrap_or_default();
        return Err(DescriptorError::Interface { plugin, host: host.to_owned() });
    }
    match identity.panic {
        abi::PANIC_UNWIND => Ok(manifest),
        abi::PANIC_ABORT if expected.allow_panic_abort => Ok(manifest),
        abi::PANIC_ABORT => Err(DescriptorError::PanicAborts),
        found => Err(DescriptorError::PanicStrategy { found }),
    }
}

/// Checks that a plugin whose contract has so many methods lists one function for all of them, and behind it one for each or
/// none.
pub(super) fn check_functions(identity: &Identity, methods: usize) -> Result<(), DescriptorError> {
    match identity.function_count as usize {
        0 => Err(DescriptorError::NoInvoke),
        1 => Ok(()),
        count if count - 1 == methods => Ok(()),
        count => Err(DescriptorError::MethodCount { found: count - 1, methods }),
    }
}

/// Reads what an identity says.
pub(super) fn manifest(identity: &Identity) -> Result<Manifest, DescriptorError> {
    let name = text("name", &identity.name)?;
    if name.is_empty() {
        return Err(DescriptorError::Text { field: "name", problem: "empty".to_owned() });
    }
    let version = text("version", &identity.version)?;
    let version = Version::parse(version).map_err(|error| DescriptorError::Text {
        field: "version",
        problem: format!("{version:?}, which is not a semantic version ({error})"),
    })?;
    let manifest = Manifest::new(name).with_version(version).with_interface(text("interface", &identity.interface)?);
    Ok(match text("schema", &identity.schema)? {
        "" => manifest,
        schema => manifest.with_schema(schema),
    })
}

/// Refuses a library that shows another identity than the file that was admitted.
pub(super) fn same_as_loaded(admitted: &Identity, loaded: &Identity) -> Result<(), DescriptorError> {
    if admitted == loaded {
        return Ok(());
    }
    let name = |identity: &Identity| match manifest(identity) {
        Ok(Manifest { name, version: Some(version), .. }) => format!("{name} {version}"),
        _ => "something unreadable".to_owned(),
    };
    Err(DescriptorError::NotWhatWasAdmitted { admitted: name(admitted), loaded: name(loaded) })
}

/// Returns a text without its padding, if it is one that can be shown to a person.
fn text<'a>(field: &'static str, text: &'a Text) -> Result<&'a str, DescriptorError> {
    let problem = |problem: &str| DescriptorError::Text { field, problem: problem.to_owned() };
    let end = text.bytes.iter().position(|byte| *byte == 0).ok_or_else(|| problem("not terminated by a zero byte"))?;
    let text = std::str::from_utf8(&text.bytes[..end]).map_err(|_| problem("not UTF-8"))?;
    if escape_untrusted(text) != text {
        return Err(problem("a text with control characters"));
    }
    Ok(text)
}

/// Takes fields from the front of untrusted bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Result<u32, DescriptorError> {
        self.take().map(u32::from_ne_bytes).ok_or(DescriptorError::NotADescriptor)
    }

    fn text(&mut self) -> Result<Text, DescriptorError> {
        self.take().map(|bytes| Text { bytes }).ok_or(DescriptorError::NotADescriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            magic: abi::MAGIC,
            abi: abi::ABI_VERSION,
            size: size_of::<abi::Descriptor>() as u32,
            panic: abi::PANIC_UNWIND,
            function_count: 2,
            name: Text::new("pricer"),
            version: Text::new("1.2.3"),
            interface: Text::new("pricer/1"),
            schema: Text::new("ticks/1"),
        }
    }

    /// Returns the bytes as a section would hold them.
    fn section(identity: &Identity) -> Vec<u8> {
        let mut bytes = identity.magic.to_vec();
        for number in [identity.abi, identity.size, identity.panic, identity.function_count] {
            bytes.extend(number.to_ne_bytes());
        }
        for text in [identity.name, identity.version, identity.interface, identity.schema] {
            bytes.extend(text.bytes);
        }
        bytes.resize(size_of::<abi::Descriptor>(), 0);
        bytes
    }

    fn admit(identity: &Identity) -> Result<Manifest, DescriptorError> {
        let expected = Expectation { interface: Some("pricer/1"), allow_panic_abort: false };
        check(&read(&section(identity))?, &expected)
    }

    #[test]
    fn what_was_written_is_read() {
        assert!(read(&section(&identity())).unwrap() == identity());
        let manifest = admit(&identity()).unwrap();
        assert_eq!(manifest.name, "pricer");
        assert_eq!(manifest.version, Some(Version::new(1, 2, 3)));
        assert_eq!(manifest.schema.as_deref(), Some("ticks/1"));
        assert_eq!(admit(&Identity { schema: Text::new(""), ..identity() }).unwrap().schema, None);
    }

    #[test]
    fn every_prefix_is_refused() {
        let whole = section(&identity());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refusal = |identity: Identity| admit(&identity).unwrap_err();
        assert_eq!(refusal(Identity { magic: [0; 16], ..identity() }), DescriptorError::NotADescriptor);
        assert_eq!(refusal(Identity { abi: 9, ..identity() }), DescriptorError::Abi { plugin: 9, host: 1 });
        assert!(matches!(refusal(Identity { size: 8, ..identity() }), DescriptorError::Size { found: 8, .. }));
        assert_eq!(refusal(Identity { panic: abi::PANIC_ABORT, ..identity() }), DescriptorError::PanicAborts);
        assert_eq!(refusal(Identity { panic: 7, ..identity() }), DescriptorError::PanicStrategy { found: 7 });
        let other = refusal(Identity { interface: Text::new("pricer/2"), ..identity() }).to_string();
        assert!(other.contains("pricer/1") && other.contains("pricer/2"), "{other}");
    }

    #[test]
    fn texts_that_nobody_should_print_are_refused() {
        let named = |bytes: [u8; 96]| admit(&Identity { name: Text { bytes }, ..identity() }).unwrap_err();
        let wrong =
            [named([b'x'; 96]), named([0xff; 96]), named(Text::new("").bytes), named(Text::new("\x1b[2J").bytes)];
        assert!(wrong.iter().all(|error| matches!(error, DescriptorError::Text { field: "name", .. })), "{wrong:?}");
        let version = admit(&Identity { version: Text::new("one"), ..identity() }).unwrap_err();
        assert!(version.to_string().contains("not a semantic version"), "{version}");
    }

    #[test]
    fn another_library_than_the_admitted_one_is_noticed() {
        assert_eq!(same_as_loaded(&identity(), &identity()), Ok(()));
        let older = Identity { version: Text::new("1.2.2"), ..identity() };
        let error = same_as_loaded(&identity(), &older).unwrap_err().to_string();
        assert!(error.contains("1.2.2") && error.contains("1.2.3"), "{error}");
    }
}
