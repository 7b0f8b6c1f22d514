//! Which versions may follow which.

use semver::{Version, VersionReq};

/// The rule for which version may follow which. It does not apply to rollbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionRule {
    /// Any.
    Any,
    /// The same as the serving one's, or a newer one; any, if one of the two has no version.
    #[default]
    NotOlder,
    /// One that meets this requirement; a plugin without a version does not.
    Compatible(VersionReq),
}

impl VersionRule {
    /// Why `new` may not follow `serving`, if it may not.
    pub(crate) fn objection(&self, serving: Option<&Version>, new: Option<&Version>) -> Option<String> {
        match (self, serving, new) {
            (VersionRule::NotOlder, Some(serving), Some(new)) if new < serving => Some(format!(
                "version {new} is older than {serving}, which serves: roll back to return to an older version, or \
                 allow it with VersionRule::Any"
            )),
            (VersionRule::Compatible(requirement), _, Some(new)) if !requirement.matches(new) => {
                Some(format!("version {new} does not meet the slot's requirement {requirement}"))
            }
            (VersionRule::Compatible(requirement), _, None) => Some(format!(
                "the plugin has no version, and the slot requires {requirement}: say it in the manifest, or with \
                 Candidate::version"
            )),
            _ => None,
        }
    }
}
