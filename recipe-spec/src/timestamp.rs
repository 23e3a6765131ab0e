//! A moment in whole seconds. It is always an argument: only the outermost command reads a clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, Time};

use crate::text::Malformed;

/// Seconds since 1970-01-01T00:00:00Z. As text and in JSON RFC 3339 with `Z` and whole seconds,
/// `2026-11-23T01:02:03Z`, and no other form is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

/// 0000-01-01T00:00:00Z, the first moment that four digits of year can say.
const FIRST: i64 = -62_167_219_200;
/// 9999-12-31T23:59:59Z, the last one; also "no expiry" in RFC 5280 §4.1.2.5.
const LAST: i64 = 253_402_300_799;

impl Timestamp {
    /// The last moment that can be written.
    pub const MAX: Timestamp = Timestamp(LAST);

    /// Seconds since the epoch; what four digits of year cannot say becomes the nearest moment they can.
    pub fn from_unix(seconds: i64) -> Self {
        Timestamp(seconds.clamp(FIRST, LAST))
    }

    /// Seconds since the epoch.
    pub fn unix(self) -> i64 {
        self.0
    }

    /// `seconds` later (earlier if negative), kept within the years 0000 to 9999.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Timestamp::from_unix(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this moment; negative if `earlier` is the later one.
    pub fn seconds_since(self, earlier: Timestamp) -> i64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        f.pad(&format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second()
        ))
    }
}

impl FromStr for Timestamp {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        read(text).ok_or_else(|| Malformed::new("a time", text, "write it as 2026-11-23T01:02:03Z"))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> String {
        timestamp.to_string()
    }
}

fn read(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(byte, want)| match want {
            b'd' => byte.is_ascii_digit(),
            want => byte == want,
        });
    if !fits {
        return None;
    }
    let two = |at: usize| (bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0');
    let year = i32::from(two(0)) * 100 + i32::from(two(2));
    let date = Date::from_calendar_date(year, Month::try_from(two(5)).ok()?, two(8)).ok()?;
    // A leap second has no number of its own in seconds since the epoch: `:60` is refused.
    let time = Time::from_hms(two(11), two(14), two(17)).ok()?;
    Some(Timestamp(date.with_time(time).assume_utc().unix_timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        assert_eq!(Timestamp::from_unix(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!("2026-11-23T01:02:03Z".parse::<Timestamp>().unwrap().unix(), 1_795_395_723);
        assert_eq!(
            "2024-02-29T23:59:59Z".parse::<Timestamp>().unwrap().plus_seconds(1).to_string(),
            "2024-03-01T00:00:00Z"
        );
    }

    #[test]
    fn the_edges_neither_panic_nor_wrap() {
        assert_eq!(Timestamp::from_unix(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.plus_seconds(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_unix(i64::MIN).plus_seconds(-1).to_string(), "0000-01-01T00:00:00Z");
    }

    #[test]
    fn every_other_form_is_refused() {
        for wrong in [
            "2026-11-23T01:02:03+00:00",
            "2026-11-23t01:02:03z",
            "2026-11-23 01:02:03Z",
            "2026-11-23T01:02:03.0Z",
            "2026-02-29T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T01:02:60Z",
            "+026-11-23T01:02:03Z",
            "2026-11-23",
            "",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }
}
