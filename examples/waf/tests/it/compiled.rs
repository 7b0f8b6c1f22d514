//! FAULTS 35 and 36, for the folder of compiled modules: what cannot be kept is compiled again, and never missed.

use hyper::StatusCode;

use crate::support::disk::SmallDisk;
use crate::support::node::Folder;
use crate::support::{Module, Node};

const OK: StatusCode = StatusCode::OK;

#[tokio::test]
async fn a_full_disk_for_compiled_modules_costs_a_compilation_and_no_reload() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let Some(disk) = SmallDisk::mount(&folder.path("data/compiled"), 256) else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let node = folder.start_logged();
    // Dropped before the node's folder.
    let disk = disk;
    assert_eq!(node.folder.compiled().len(), 1, "there is room for one");
    disk.fill();
    for version in ["1.1.0", "1.2.0"] {
        let answer = node.upload(&Module::new(version).bytes()).await;
        assert_eq!(answer.status, OK, "{}", answer.text());
        assert_eq!(node.version().await["version"], version);
        assert_eq!(node.get("/").await.status, OK);
    }
    assert_eq!(node.folder.compiled().len(), 1, "and for no other");
    let log = node.folder.log();
    assert_eq!(log.matches("could not write to the compile cache").count(), 1, "it is said once: {log}");
    // Functions are written when there is time for it, if there is room.
    let entries = std::fs::read_dir(node.folder.path("data/compiled")).unwrap().map(|entry| entry.unwrap().path());
    let is_of_functions =
        |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "functions" || end == "new");
    assert_eq!(entries.filter(|path| !is_of_functions(path)).count(), 3, "the key, one, the ballast");

    let node = node.kill().start();
    let disk = disk;
    assert_eq!(node.version().await["version"], "1.2.0");
    disk.empty();
    assert_eq!(node.upload(&Module::new("1.3.0").bytes()).await.status, OK);
    assert_eq!(node.folder.compiled().len(), 2);
}

#[tokio::test]
async fn a_folder_that_nobody_can_write_any_more_costs_no_reload() {
    let folder = Folder::new(&Module::new("1.0.0"), "");
    let Some(disk) = SmallDisk::mount(&folder.path("data/compiled"), 256) else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let node = folder.start();
    let disk = disk;
    disk.set_read_only(true);
    assert_eq!(node.upload(&Module::new("1.1.0").bytes()).await.status, OK);
    assert_eq!(node.get("/").await.status, OK);
    assert_eq!(node.folder.compiled().len(), 1);
    disk.set_read_only(false);
    assert_eq!(node.upload(&Module::new("1.2.0").bytes()).await.status, OK);
    assert_eq!(node.folder.compiled().len(), 2);
}

#[tokio::test]
async fn a_compiled_module_that_was_damaged_is_skipped_and_made_again() {
    let mut folder = Node::start(&Module::new("1.0.0")).kill();
    let [entry] = &folder.compiled()[..] else { panic!("one module was compiled") };
    let entry = entry.clone();
    let whole = std::fs::read(&entry).unwrap();
    let flip = |place: usize| {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        damaged
    };
    for damaged in [flip(0), flip(whole.len() / 2), flip(whole.len() - 1), whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&entry, &damaged).unwrap();
        let node = folder.start_logged();
        assert_eq!(node.get("/").await.status, OK);
        assert_eq!(node.version().await["version"], "1.0.0");
        let log = node.folder.log();
        assert!(log.contains("skipped an entry of the compile cache"), "{log}");
        assert_ne!(std::fs::read(&entry).unwrap(), damaged, "it was made again");
        folder = node.kill();
    }
}
