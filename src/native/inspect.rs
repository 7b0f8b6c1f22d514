//! A library of any platform and machine, looked at.

use super::descriptor;
use super::image::{Image, ImageError};
use crate::interface::Contract;
use crate::{BoxError, Inspection};

pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspection, BoxError> {
    let image = Image::of_any_machine(bytes)?;
    let manifest = match image.descriptor() {
        Ok(section) => {
            let mut manifest = descriptor::manifest(&descriptor::read(section)?)?;
            let contract = descriptor::contract(section).map(Contract::parse).transpose()?;
            manifest.contract = contract.map(Into::into);
            Some(manifest)
        }
        Err(ImageError::NotAPlugin) => None,
        Err(error) => return Err(error.into()),
    };
    let (format, architecture) = (image.format(), image.machine());
    Ok(Inspection { format, architecture, manifest, imports: Vec::new(), exports: Vec::new() })
}
