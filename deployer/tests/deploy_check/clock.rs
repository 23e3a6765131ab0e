//! A clock a year off, and right again: every answer is a refusal while it is wrong, and none of them outlasts it.

use super::*;
use crate::minted::{DAY, YEAR};

#[test]
fn a_year_ahead_and_right_again() {
    let minted = minted();
    assert_eq!(soon(&minted), Ok(()));
    let before = state(&minted);
    for (ahead, code) in [
        (4 * YEAR, Code::CertExpired),
        (YEAR, Code::CrlExpired),
        // The authorization still holds, what would say that it is revoked does not.
        (8 * DAY, Code::CrlExpired),
    ] {
        assert_eq!(verdict(&minted, None, at(ahead)), Err(code), "{} days", ahead / DAY);
        assert_eq!(state(&minted), before);
    }
    // So little ahead that nothing is over yet: an answer, but no memory of the time.
    assert_eq!(verdict(&minted, None, at(6 * DAY)), Ok(()));
    assert_eq!(state(&minted), before);
    assert_eq!(soon(&minted), Ok(()));
}

#[test]
fn a_year_behind_and_right_again() {
    let minted = minted();
    // Before the first list is seen, the certificates alone can tell.
    assert_eq!(verdict(&minted, None, at(-YEAR)), Err(Code::CertExpired));
    assert_eq!(soon(&minted), Ok(()));
    let before = state(&minted);
    for behind in [YEAR, DAY, crl::FUTURE_TOLERANCE_SECONDS + 1] {
        assert_eq!(verdict(&minted, None, at(-behind)), Err(Code::ClockBackward), "{behind} s");
        assert_eq!(state(&minted), before);
    }
    assert_eq!(soon(&minted), Ok(()));
}

/// The clock was ahead while the site published a list: that it is right now is said once, by a person, and all that was
/// revoked meanwhile is revoked.
#[test]
fn a_list_published_ahead_of_time_is_taken_back() {
    let minted = minted();
    let ahead = at(20 * DAY);
    minted.publish_list(&["version:atlas/other@1.0.0".parse().unwrap()], ahead);
    assert_eq!(soon(&minted), Err(Code::ClockBackward));
    let issuer = minted.site_key(signer::Role::CrlIssuer, signer::Role::CrlIssuer);
    let (header, body) = crl::issue_correction(&minted.list(), at(7 * DAY), &issuer, at(60)).unwrap();
    crl::store(&minted.layout().recipe_crl(), &header, &body).unwrap();
    assert_eq!(verdict(&minted, None, at(90)), Ok(()));
    assert_eq!((minted.list().number(), minted.list().body().len()), (3, 1));
    assert_eq!(verdict(&minted, None, at(-YEAR)), Err(Code::ClockBackward), "and the memory is the new one");
}
