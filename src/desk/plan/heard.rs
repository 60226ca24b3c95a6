//! What the code of the boot would say on the console while it decides.
//!
//! Some of it warns without failing: a name server that is no address is left out. At the desk
//! nobody listens to `log`, unless it is here.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    /// None while nobody listens on this thread.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Ear;

impl Log for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            HEARD.with_borrow_mut(|heard| {
                heard.iter_mut().for_each(|heard| heard.push(record.args().to_string()));
            });
        }
    }

    fn flush(&self) {}
}

/// Runs `decide`; gives its warnings as well.
pub fn during<T>(decide: impl FnOnce() -> T) -> (T, Vec<String>) {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        // Fails where a console is attached already, which then shows the lines itself.
        if log::set_logger(&Ear).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    });
    HEARD.set(Some(Vec::new()));
    let result = decide();
    (result, HEARD.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_heard_and_the_rest_is_not() {
        let (value, heard) = during(|| {
            log::warn!("left out");
            log::info!("done");
            7
        });
        assert_eq!((value, heard), (7, vec!["left out".to_owned()]));
        assert_eq!(during(|| ()).1, Vec::<String>::new());
    }
}
