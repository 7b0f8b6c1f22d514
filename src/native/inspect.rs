//! A library of any platform and machine, looked at.

use super::descriptor;
use super::image::{Image, ImageError};
use super::link;
use crate::host::Contract;
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
    let linkage = Some(link::describe(&image, image.is_for_this_process(bytes)));
    Ok(Inspection { format, architecture, manifest, linkage, imports: Vec::new(), exports: Vec::new() })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::inspect;

    #[test]
    fn no_byte_of_the_headers_and_no_cut_can_make_it_panic() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(inspect(&whole).unwrap().manifest, None);
        let mut damaged = whole.clone();
        for at in 0..1024 {
            for value in [0, 1, 2, 0x7f, 0xff] {
                damaged[at] = value;
                let _ = inspect(&damaged);
            }
            damaged[at] = whole[at];
        }
        for percent in 0..100 {
            assert!(inspect(&whole[..whole.len() * percent / 100]).is_err(), "{percent} percent of it");
        }
    }
}
