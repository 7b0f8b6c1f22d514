//! Methods that came later than they can have, or never.

use hotslot_plugin::interface;

#[interface(version = "2.1")]
pub trait Since {
    #[since("2.1")]
    fn without_body(&self) -> u32;
    #[since("2.2")]
    fn of_the_future(&self) {}
    #[since("1.1")]
    fn of_another_major(&self) {}
    #[since("2.0")]
    fn from_the_start(&self) {}
    #[since("2")]
    fn malformed(&self) {}
    #[since(1.1)]
    fn unquoted(&self) {}
    #[since]
    fn without_version(&self) {}
    #[since("2.1")]
    #[since("2.1")]
    fn twice(&self) {}
    #[on_error(Ok(()))]
    fn with_nothing_to_replace(&self) -> Result<(), hotslot_plugin::CallError>;
    #[on_error]
    fn with_nothing_instead(&self) -> u32;
}

fn main() {}
