//! The generated header alone; the other files build plugins with it.

use crate::support::{Folder, hotslot};

#[test]
fn headers_of_several_interfaces_go_into_one_file() {
    let folder = Folder::new();
    folder.header();
    let other = "interface price-feed 2.1\nmethod fixture(Side{Buy=1})->Option<u8>??:u8\nsince 2.1 tick()->()\n";
    let contract = folder.write("feed.txt", other);
    let header = hotslot(["header".as_ref(), contract.as_os_str()]).ok();
    folder.write("feed.h", header);
    let source = r#"
        #include "feed.h"
        #include "fixture.h"
        _Static_assert(PRICE_FEED_FIXTURE == 0 && PRICE_FEED_TICK == 1 && FIXTURE_FAIL == 3, "numbers");
        _Static_assert(sizeof(hotslot_frame) == 56 && sizeof(hotslot_argument) == 16, "layout");
        const char contract[] = PRICE_FEED_CONTRACT;
    "#;
    let library = std::fs::read(folder.c_library("both.so", source)).unwrap();
    assert!(library.windows(other.len()).any(|window| window == other.as_bytes()), "the text is what it was");
}

#[test]
fn a_header_is_made_of_a_plugin_as_well() {
    let folder = Folder::new();
    let library = folder.c_fixture("fixture.so", "");
    let of_plugin = hotslot(["header".as_ref(), library.as_os_str()]).ok();
    assert_eq!(of_plugin, std::fs::read_to_string(folder.path("fixture.h")).unwrap());
    hotslot(["header".as_ref(), folder.c_library("plain.so", "int answer;").as_os_str()]).failed(2);
}
