//! The contract of an interface as a plugin carries it, and whether a host and a plugin fit.

use std::fmt;

use hotslot_plugin::Interface;

use super::difference::{difference, is_undescribed, outline};
use crate::text::plugin_text;

/// The longest contract that is taken from a plugin, in bytes.
const SIZE: usize = hotslot_plugin::__private::contract::LIMIT;
/// The most methods that one may have.
const METHODS: usize = 1_000;

/// Name, version and methods of an interface.
///
/// ```
/// # mod shared { #[hotslot_plugin::interface(version = "1.1")] pub trait Pricer {
/// #     fn quote(&self, symbol: &str) -> f64;
/// #     #[since("1.1")] fn describe(&self) -> String { String::new() }
/// # } }
/// # use shared::Pricer;
/// use hotslot::host::Contract;
///
/// let contract = Contract::of::<dyn Pricer>();
/// assert_eq!(contract.name, "pricer");
/// assert_eq!(contract.methods[0].to_string(), "quote(&str)->f64");
/// assert_eq!(contract.methods[1].to_string(), "describe()->String, since 1.1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Contract {
    /// The interface's name.
    pub name: String,
    /// Major and minor.
    pub version: (u32, u32),
    /// In the order of their numbers.
    pub methods: Vec<Method>,
}

/// One method of a [`Contract`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Method {
    /// Its name.
    pub name: String,
    /// The types of its parameters and of its answer, each with what it is made of.
    pub signature: String,
    /// The version that it came with, if that is not the major version's first: it is optional.
    pub since: Option<(u32, u32)>,
}

impl Method {
    /// Returns the method as a message shows it: without what its types are made of.
    fn shown(&self) -> String {
        Method { signature: outline(&self.signature), ..self.clone() }.to_string()
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Method { name, signature, since } = self;
        match since {
            None => write!(f, "{name}{signature}"),
            Some((major, minor)) => write!(f, "{name}{signature}, since {major}.{minor}"),
        }
    }
}

/// Why a plugin does not fit the host's interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// It says nothing of an interface.
    #[error(
        "the plugin carries no contract, and this slot takes the interface `{host}`: export it with \
         hotslot_plugin::export!(Type as Interface)"
    )]
    Missing {
        /// The host's interface.
        host: String,
    },
    /// What it says cannot be read.
    #[error("the plugin's contract cannot be read, at line {line}: {reason}")]
    Malformed {
        /// The line, from 1 on.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It implements another interface.
    #[error("the plugin implements the interface `{plugin}`, and this slot takes `{host}`: build it against that one")]
    Interface {
        /// The plugin's.
        plugin: String,
        /// The host's.
        host: String,
    },
    /// It needs a service that the host does not offer.
    #[error("the plugin needs the service `{plugin}`, and this host offers `{host}`")]
    Service {
        /// What the plugin asks for.
        plugin: String,
        /// What there is.
        host: String,
    },
    /// It implements another major version.
    #[error(
        "the plugin implements `{name}` {plugin}, and this slot takes {host}: another major version is another \
         interface, build the plugin against {host}"
    )]
    Version {
        /// The interface.
        name: String,
        /// The plugin's version.
        plugin: String,
        /// The host's version.
        host: String,
    },
    /// A method that it should have is missing.
    #[error(
        "the plugin lacks the method `{method}` of the interface `{interface}`: build it against the host's version"
    )]
    MissingMethod {
        /// The interface.
        interface: String,
        /// The method with its signature.
        method: String,
    },
    /// A method that both have is not the same.
    #[error(
        "the method `{method}` of the interface `{interface}` differs: the plugin has {plugin}, and the host {host}. \
         A changed signature is a new method, or a new major version"
    )]
    ChangedMethod {
        /// The interface.
        interface: String,
        /// The method.
        method: String,
        /// Its signature in the plugin.
        plugin: String,
        /// Its signature in the host.
        host: String,
    },
    /// A type that a method of both takes or returns is not the same.
    #[error(
        "a type in the method `{method}` of the interface `{interface}` differs. {ty}: {difference}. A changed type is a \
         new type in a new method, or a new major version"
    )]
    ChangedType {
        /// The interface.
        interface: String,
        /// The method.
        method: String,
        /// The innermost type that differs.
        ty: String,
        /// The first of its fields or variants that differs, on both sides.
        difference: String,
    },
    /// A method has a serde type, and the contract does not say what that is made of.
    #[error(
        "the contract does not say what the types in the method `{method}` of the interface `{interface}` are made of, \
         because it is of an older hotslot-plugin: build both sides with this version"
    )]
    Undescribed {
        /// The interface.
        interface: String,
        /// The method.
        method: String,
    },
    /// A service that the plugin needs lacks a method.
    #[error(
        "the host's service `{service}` lacks the method `{method}`, which the plugin needs: build the plugin against the \
         host's version of the service"
    )]
    MissingServiceMethod {
        /// The service.
        service: String,
        /// The method with its signature.
        method: String,
    },
}

/// Which of the two sides calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Host,
    /// A service of the host is called.
    Plugin,
}

/// Where one side, which calls, finds its methods on the other side, which answers: for each method of this side its
/// number on the other, if that has it. See [`Contract::methods_in`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodNumbers(Box<[Option<u32>]>);

impl MethodNumbers {
    /// Returns the other side's number of this side's method; `None` if the other side does not have it.
    #[inline]
    pub fn get(&self, method: u32) -> Option<u32> {
        *self.0.get(method as usize)?
    }

    /// Returns them all, in the order of this side's methods.
    #[cfg(feature = "native")]
    pub(crate) fn all(&self) -> impl Iterator<Item = Option<u32>> {
        self.0.iter().copied()
    }
}

impl Contract {
    /// Returns the contract of an interface.
    pub fn of<I: Interface + ?Sized>() -> Contract {
        Contract::parse(I::CONTRACT.as_bytes()).expect("the macro writes what this reads")
    }

    /// Reads a contract's text, which need not be trusted.
    ///
    /// # Errors
    /// It is none, or larger than any that is meant.
    pub fn parse(text: &[u8]) -> Result<Contract, ContractError> {
        let wrong = |line: usize, reason: &str| ContractError::Malformed { line: line + 1, reason: reason.to_owned() };
        if text.len() > SIZE {
            return Err(wrong(0, "it has more than 64 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| wrong(0, "it is not UTF-8"))?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let (_, first) = lines.next().ok_or_else(|| wrong(0, "it is empty"))?;
        let (name, version) = first
            .strip_prefix("interface ")
            .and_then(|rest| rest.split_once(' '))
            .and_then(|(name, version)| Some((identifier(name)?, numbers(version)?)))
            .ok_or_else(|| wrong(0, "it should begin with `interface NAME MAJOR.MINOR`"))?;
        let mut contract = Contract { name, version, methods: Vec::new() };
        for (at, line) in lines {
            let method = method(line).ok_or_else(|| {
                let shown = plugin_text(line.as_bytes(), 200);
                wrong(at, &format!("`{shown}` is no method, as in `method NAME(TYPES)->TYPE`"))
            })?;
            if contract.methods.iter().any(|known| known.name == method.name) {
                return Err(wrong(at, "duplicate method"));
            }
            if contract.methods.len() == METHODS {
                return Err(wrong(at, "there are more than 1,000 methods"));
            }
            contract.methods.push(method);
        }
        Ok(contract)
    }

    /// Checks whether a host of this contract takes a plugin of that one: for tools that read both from files. A backend
    /// takes [`methods_in_manifest`](Contract::methods_in_manifest).
    ///
    /// ```
    /// use hotslot::host::Contract;
    ///
    /// let host = Contract::parse(b"interface pricer 1.0\nmethod quote(&str)->f64\n")?;
    /// let newer = Contract::parse(b"interface pricer 1.1\nmethod quote(&str)->f64\nsince 1.1 describe()->String\n")?;
    /// let changed = Contract::parse(b"interface pricer 1.0\nmethod quote(&str)->f32\n")?;
    /// host.admits(&newer)?;
    /// assert!(host.admits(&changed).unwrap_err().to_string().contains("`quote`"));
    /// # Ok::<(), hotslot::host::ContractError>(())
    /// ```
    ///
    /// # Errors
    /// It does not, and why.
    pub fn admits(&self, plugin: &Contract) -> Result<(), ContractError> {
        self.methods_in(plugin).map(drop)
    }

    /// Returns what identifies the interface: [`Interface::ID`], from the contract alone.
    pub fn id(&self) -> String {
        let required = |method: &&Method| method.since.is_none();
        let lines = self.methods.iter().filter(required).map(|method| format!("method {method}\n"));
        let hash = hotslot_plugin::__private::contract::hash(lines.collect::<String>().as_bytes());
        format!("{}/{}#{}", self.name, self.version_text(), String::from_utf8_lossy(&hash))
    }

    /// Compares the contract of the side that calls, this one, with that of the side that answers, and returns where it
    /// finds its methods there. They are found by name, whatever their order.
    ///
    /// ```
    /// use hotslot::host::Contract;
    ///
    /// let host = Contract::parse(b"interface i 1.1\nmethod a()->()\nmethod b()->u8\nsince 1.1 c()->()")?;
    /// let plugin = Contract::parse(b"interface i 1.0\nmethod b()->u8\nmethod a()->()")?;
    /// let methods = host.methods_in(&plugin)?;
    /// assert_eq!([0, 1, 2].map(|method| methods.get(method)), [Some(1), Some(0), None]);
    /// # Ok::<(), hotslot::host::ContractError>(())
    /// ```
    ///
    /// # Errors
    /// They do not fit, and why: another interface or major version, or a method that is missing or has another
    /// signature.
    pub fn methods_in(&self, plugin: &Contract) -> Result<MethodNumbers, ContractError> {
        self.compare(plugin, Caller::Host)
    }

    /// The same where this is the contract of a plugin, and that one of a service that the host offers.
    pub(super) fn methods_in_service(&self, host: &Contract) -> Result<MethodNumbers, ContractError> {
        self.compare(host, Caller::Plugin)
    }

    fn compare(&self, other: &Contract, caller: Caller) -> Result<MethodNumbers, ContractError> {
        let [plugin, host] = match caller {
            Caller::Host => [other, self],
            Caller::Plugin => [self, other],
        };
        if self.name != other.name {
            return Err(ContractError::Interface { plugin: plugin.name.clone(), host: host.name.clone() });
        }
        if self.version.0 != other.version.0 {
            let name = self.name.clone();
            let [plugin, host] = [plugin, host].map(Contract::version_text);
            return Err(ContractError::Version { name, plugin, host });
        }
        let number = |method: &Method| {
            let found = other.methods.iter().position(|there| there.name == method.name);
            match found.map(|at| (at, &other.methods[at])) {
                None if method.since.is_some() => Ok(None),
                None => Err(match caller {
                    Caller::Host => {
                        ContractError::MissingMethod { interface: self.name.clone(), method: method.shown() }
                    }
                    Caller::Plugin => {
                        ContractError::MissingServiceMethod { service: self.name.clone(), method: method.shown() }
                    }
                }),
                Some((_, there)) if there.signature != method.signature || is_undescribed(&method.signature) => {
                    let [plugin, host] = match caller {
                        Caller::Host => [there, method],
                        Caller::Plugin => [method, there],
                    };
                    Err(self.changed(plugin, host))
                }
                Some((at, _)) => Ok(u32::try_from(at).ok()),
            }
        };
        Ok(MethodNumbers(self.methods.iter().map(number).collect::<Result<_, _>>()?))
    }

    /// Names what is different in a method.
    fn changed(&self, plugin: &Method, host: &Method) -> ContractError {
        let (interface, method) = (self.name.clone(), host.name.clone());
        let [ours, theirs] = [plugin, host].map(|method| method.signature.as_str());
        if is_undescribed(ours) || is_undescribed(theirs) {
            return ContractError::Undescribed { interface, method };
        }
        if let Some(found) = difference(ours, theirs) {
            return ContractError::ChangedType { interface, method, ty: found.ty, difference: found.what };
        }
        let (mut plugin, mut host) = (outline(ours), outline(theirs));
        if plugin == host {
            (plugin, host) = (ours.to_owned(), theirs.to_owned());
        }
        ContractError::ChangedMethod { interface, method, plugin, host }
    }

    /// Compares this contract, the host's, with the one that a plugin carries, and returns where the plugin has the host's
    /// methods: a step of every [admission](crate::Backend::admit) of a backend for declared interfaces. What it returns
    /// goes along as [evidence](crate::Admission::with_evidence), for the [`InterfaceLink`](super::InterfaceLink).
    ///
    /// # Errors
    /// The plugin carries none, or they do not fit.
    pub fn methods_in_manifest(&self, manifest: &crate::Manifest) -> Result<MethodNumbers, ContractError> {
        tracing::trace!(interface = self.name, "contracts compared");
        let plugin = manifest.contract.as_ref().ok_or_else(|| ContractError::Missing { host: self.name.clone() })?;
        self.methods_in(plugin)
    }

    fn version_text(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }
}

/// As a plugin carries it.
impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "interface {} {}", self.name, self.version_text())?;
        for Method { name, signature, since } in &self.methods {
            match since {
                None => writeln!(f, "method {name}{signature}")?,
                Some((major, minor)) => writeln!(f, "since {major}.{minor} {name}{signature}")?,
            }
        }
        Ok(())
    }
}

fn method(line: &str) -> Option<Method> {
    let (since, rest) = match line.strip_prefix("method ") {
        Some(rest) => (None, rest),
        None => {
            let (version, rest) = line.strip_prefix("since ")?.split_once(' ')?;
            (Some(numbers(version)?), rest)
        }
    };
    let at = rest.find('(')?;
    let (name, signature) = rest.split_at(at);
    let (name, signature) = (identifier(name)?, printed(signature)?);
    signature.contains(")->").then_some(Method { name, signature, since })
}

fn identifier(text: &str) -> Option<String> {
    let is_sound =
        !text.is_empty() && text.len() <= 255 && text.chars().all(|c| c.is_alphanumeric() || "_-#".contains(c));
    is_sound.then(|| text.to_owned())
}

/// Returns a text if it can be shown as it is.
fn printed(text: &str) -> Option<String> {
    (plugin_text(text.as_bytes(), SIZE) == text).then(|| text.to_owned())
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(text: &str) -> Contract {
        Contract::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "interface waf 1.2\nmethod a(&[u8])->Verdict{Allow=0}\nsince 1.2 b()->()\n";
        assert_eq!(contract(text).to_string(), text);
        assert_eq!(contract(text).methods[1].since, Some((1, 2)));
    }

    #[test]
    fn an_interface_is_identified_by_its_contract_alone() {
        mod shared {
            #[hotslot_plugin::interface(version = "1.1")]
            pub trait Pricer {
                fn quote(&self, symbol: &str) -> f64;
                #[since("1.1")]
                fn describe(&self) -> String {
                    String::new()
                }
            }
        }
        let contract = Contract::of::<dyn shared::Pricer>();
        assert_eq!(contract.id(), <dyn shared::Pricer as Interface>::ID);
    }

    #[test]
    fn what_is_no_contract_is_refused_with_its_line() {
        for (text, line, reason) in [
            ("", 1, "empty"),
            ("interface waf", 1, "begin with"),
            ("interface w\u{1b}f 1.0", 1, "begin with"),
            ("interface waf 1.+1", 1, "begin with"),
            ("interface waf 1.0\nmethod a", 2, "is no method"),
            ("interface waf 1.0\nmethod a(\u{1b}[2J)->()", 2, "\\u{1b}"),
            ("interface waf 1.0\nmethod a()->()\nmethod a()->()", 3, "duplicate"),
            ("interface waf 1.0\nsince x a()->()", 2, "is no method"),
        ] {
            let error = Contract::parse(text.as_bytes()).expect_err(text);
            assert!(matches!(error, ContractError::Malformed { line: at, .. } if at == line), "{error}");
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(Contract::parse(&[0xff]).unwrap_err().to_string().contains("UTF-8"));
        assert!(Contract::parse(&vec![b'x'; SIZE + 1]).unwrap_err().to_string().contains("64 KiB"));
    }

    #[test]
    fn methods_are_found_by_name_whatever_their_order() {
        let host = contract("interface i 1.1\nmethod a()->()\nmethod b()->u8\nsince 1.1 c()->()");
        let plugin = contract("interface i 1.0\nmethod b()->u8\nmethod a()->()");
        assert_eq!(*host.methods_in(&plugin).unwrap().0, [Some(1), Some(0), None]);
        assert_eq!(*plugin.methods_in(&host).unwrap().0, [Some(1), Some(0)]);
    }

    #[test]
    fn each_way_not_to_fit_is_named() {
        let host = contract("interface i 1.1\nmethod a(u8)->()\nsince 1.1 c()->()");
        let refusal = |plugin: &str| host.methods_in(&contract(plugin)).unwrap_err();
        assert!(matches!(refusal("interface j 1.0"), ContractError::Interface { .. }));
        assert!(matches!(refusal("interface i 2.0"), ContractError::Version { .. }));
        assert!(matches!(refusal("interface i 1.0"), ContractError::MissingMethod { .. }));
        let changed = refusal("interface i 1.0\nmethod a(u16)->()").to_string();
        assert!(changed.contains("`a`") && changed.contains("(u8)->()") && changed.contains("(u16)->()"), "{changed}");
        // An optional method that is there has to be the right one, too.
        let changed = refusal("interface i 1.0\nmethod a(u8)->()\nmethod c()->u8");
        assert!(matches!(changed, ContractError::ChangedMethod { method, .. } if method == "c"));
    }
}
