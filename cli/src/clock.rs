//! The clock, read at the edge: once for each decision, and handed on as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use recipe_spec::Timestamp;

/// The time of this machine's clock.
pub(crate) fn now() -> Timestamp {
    let seconds = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    };
    Timestamp::from_unix(seconds)
}

/// A moment as a part of a file's name: `20261123T010203Z`.
pub(crate) fn stamp(moment: Timestamp) -> String {
    moment.to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_past_the_day_this_was_written_and_a_stamp_sorts() {
        assert!(now() > "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(stamp("2026-11-23T01:02:03Z".parse().unwrap()), "20261123T010203Z");
    }
}
