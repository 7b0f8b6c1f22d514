//! A disk that is too small, where one can be mounted.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// A private one at this path; `None` where mounting is not allowed.
    pub fn mount(at: &Path, kibibytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a folder");
        let options = format!("size={kibibytes}k,mode=0700");
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(at).output();
        output.is_ok_and(|output| output.status.success()).then(|| SmallDisk(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("full")
    }

    /// Leaves no room for another byte.
    pub fn fill(&self) {
        // It ends with an error: that is when it is full.
        let _ = std::fs::write(self.ballast(), vec![0; 16 << 20]);
        assert!(std::fs::write(self.0.join("more"), [0; 4096]).is_err(), "it is full");
        std::fs::remove_file(self.0.join("more")).expect("to be there, empty");
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).expect("to be there");
    }

    /// Lets nobody write any more, or again.
    pub fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        let done = Command::new("mount").args(["-o", options]).arg(&self.0).status().expect("mount");
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while a node still has it open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
