//! A control group that allows its processes only so much memory, where one can be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Below the group that the test is in, or beside it: whatever bounds that one bounds this one too.
pub struct Cage {
    folder: PathBuf,
    is_unified: bool,
}

impl Cage {
    /// A group of its own with so many bytes, or why there is none.
    pub fn new(name: &str, bytes: u64) -> Result<Cage, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let mut problem = "no memory controller is mounted".to_owned();
        for is_unified in [false, true] {
            let group = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let fits = if is_unified { number == "0" } else { controllers.split(',').any(|it| it == "memory") };
                fits.then_some(path)
            });
            let mount = mounts.lines().find_map(|line| {
                let mut parts = line.split(' ').skip(1);
                let (place, kind, options) = (parts.next()?, parts.next()?, parts.next()?);
                let fits = match is_unified {
                    true => kind == "cgroup2",
                    false => kind == "cgroup" && options.split(',').any(|it| it == "memory"),
                };
                fits.then_some(place)
            });
            let Some((group, mount)) = group.zip(mount) else { continue };
            let own = Path::new(mount).join(group.trim_start_matches('/'));
            for parent in [Some(own.as_path()), own.parent().filter(|parent| parent.starts_with(mount))] {
                let Some(parent) = parent else { continue };
                match Cage::within(parent, name, is_unified, bytes) {
                    Ok(cage) => return Ok(cage),
                    Err(error) => problem = format!("{}: {error}", parent.display()),
                }
            }
        }
        Err(problem)
    }

    fn within(parent: &Path, name: &str, is_unified: bool, bytes: u64) -> std::io::Result<Cage> {
        let folder = tempfile::Builder::new().prefix(&format!("waf-test-{name}-")).tempdir_in(parent)?.keep();
        let cage = Cage { folder, is_unified };
        let limit = if is_unified { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(cage.folder.join(limit), bytes.to_string())?;
        // No way out to the disk either. Not there where nothing is swapped.
        let swap = if is_unified { ("memory.swap.max", 0) } else { ("memory.memsw.limit_in_bytes", bytes) };
        let _ = fs::write(cage.folder.join(swap.0), swap.1.to_string());
        Ok(cage)
    }

    /// The same command, run in here.
    pub fn around(&self, command: Command) -> Command {
        let mut caged = Command::new("sh");
        caged.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        caged.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => caged.env(name, value),
                None => caged.env_remove(name),
            };
        }
        caged
    }

    /// The processes in here.
    pub fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.folder.join("cgroup.procs")).expect("the group's processes");
        list.lines().map(|line| line.parse().expect("a process")).collect()
    }

    /// How often the system had to kill for memory.
    pub fn kills(&self) -> u64 {
        let file = if self.is_unified { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folder.join(file)).expect("the group's events");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("a count").parse().expect("a number")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // A process is gone from the group a moment after its end.
        let began = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
