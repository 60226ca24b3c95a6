//! Links that are not ready: whoever asks on one needs a socket before it is there, and an address
//! to send from before it is known to be its own alone.

use std::time::Duration;

use tokio::time::sleep;

use crate::error::{Error, Result};

/// Opens a socket, however long it takes; `None` when nobody listens any more to why it cannot.
pub async fn opened<T, R>(attempt: impl Fn() -> Result<T>, tell: impl Fn(Error) -> R) -> Option<T>
where
    R: Future<Output = bool>,
{
    loop {
        match attempt() {
            Ok(socket) => return Some(socket),
            Err(error) => {
                if !tell(error).await {
                    return None;
                }
                sleep(Duration::from_secs(2)).await;
            }
        }
    }
}

/// Before a message that could not leave is tried again: an eighth of the time for which that has
/// been so, so that an address that comes after a second is noticed 0.1 s later, and a link that
/// never gets one costs nothing.
pub fn after_unsent(since: Duration, now: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(2);
    (now.saturating_sub(since) / 8).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_leave_is_tried_less_and_less() {
        let after =
            |seconds| after_unsent(Duration::ZERO, Duration::from_secs(seconds)).as_millis();
        assert_eq!([after(0), after(1), after(60)], [10, 125, 2000]);
    }
}
